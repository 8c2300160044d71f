"""A coder from a repository, as a folder like that of a run."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qsae_core.runs import MEMBERS, atomic_folder, member_folders, read_json, slug
from qsae_hub.address import Address
from qsae_hub.cache import into_cache
from qsae_hub.errors import HubError
from qsae_hub.fetching import DESCRIPTION, fetched_before, meant, paths_below
from qsae_hub.layout import CODER, PARTS, RESULTS
from qsae_hub.names import matches
from qsae_hub.remote import FINAL, coders_among, list_files, nothing_there


@dataclass(frozen=True)
class Pulled:
    """A coder's files, in huggingface_hub's cache."""

    folder: pathlib.Path
    """Where the coder's folder is there."""
    files: tuple[str, ...]
    """Paths below it."""
    left_out: dict[str, int]
    """Part that was not asked for -> its bytes."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum((self.folder / name).stat().st_size for name in self.files)


def pull_into_cache(address: Address, parts: Sequence[str]) -> Pulled:
    """Fetch a coder that ``qsae push`` put there; with ``HF_HUB_OFFLINE`` set, find what was fetched before.

    Args:
        parts: what is asked for of ``layout.PARTS``.

    Raises:
        HubError: if there is no coder, or it lacks a part.
    """
    from huggingface_hub import is_offline_mode

    names = [*CODER, *(name for part in parts for name in PARTS[part])]
    left_out: dict[str, int] = {}
    if is_offline_mode():
        folder = fetched_before(address, names)
    else:
        listing = list_files(address)
        if address.path not in coders_among(listing.files):
            raise nothing_there(address, "holds no coder that qsae push put there")
        sizes = {
            part: sum(listing.files[path].size for path in meant(address, listing.files, PARTS[part]))
            for part in PARTS
        }
        left_out = {part: size for part, size in sizes.items() if size and part not in parts}
        wanted = meant(address, listing.files, names)
        folder = into_cache(listing, [listing.files[path] for path in wanted]) / address.path
    found = tuple(path for path in paths_below(folder) if matches(path, names))
    lacking = [part for part in parts if not any(matches(path, PARTS[part]) for path in found)]
    if lacking or not any(f"{FINAL}/{name}" in found for name in (DESCRIPTION, MEMBERS)):
        raise HubError(
            f"has no {lacking[0] if lacking else 'coder'}",
            where=str(address),
            allowed=", ".join(left_out) or None,
        )
    return Pulled(folder, found, left_out)


def usual_folder(address: Address, pulled: Pulled) -> pathlib.Path:
    """Where a pulled run goes where nothing else is said: among the results, where ``qsae runs`` finds it."""
    name = slug("-".join([address.repo.partition("/")[2], *address.path.split("/")]).strip("-"))
    file = pulled.folder / "metrics.json"
    metrics: Any = read_json(file) if file.is_file() else None
    if not isinstance(metrics, dict) or not {"layer", "steps"} <= metrics.keys():
        return pathlib.Path(RESULTS, name)
    return pathlib.Path(RESULTS, name, slug(str(metrics["layer"])), slug(str(metrics["steps"])))


def check_free(out: pathlib.Path, overwrite: bool) -> None:
    """Refuse a folder in which something else is.

    Raises:
        HubError: if anything is there; with ``overwrite``, anything but a coder.
    """
    if not out.exists():
        return
    is_coder = any((out / FINAL / name).is_file() for name in (DESCRIPTION, MEMBERS))
    if not overwrite or not is_coder:
        raise HubError(
            "there is something of that name already" + (", and it is no coder" if not is_coder else ""),
            where=str(out),
            next="choose another --out" + (", or --overwrite replaces it" if is_coder else ""),
        )


def put(pulled: Pulled, out: pathlib.Path, *, fresh: bool) -> None:
    """Copy what was fetched to a folder, all or nothing.

    Args:
        fresh: take the place of nothing that another process wrote in the meantime.

    Raises:
        ArtifactError: if a coder of several is missing, or another one.
        UnwritableError: if the disk refuses it.
    """
    with atomic_folder(out, fresh=fresh) as temporary:
        for name in pulled.files:
            place = temporary / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pulled.folder / name, place)
        if f"{FINAL}/{MEMBERS}" in pulled.files:
            member_folders(temporary / FINAL)
