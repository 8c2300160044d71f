"""``hf://...`` as a local folder: what ``qsae_core.load`` and others ask for."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Sequence

from qsae_hub.address import Address
from qsae_hub.cache import into_cache
from qsae_hub.errors import HubError
from qsae_hub.names import matches
from qsae_hub.remote import list_files, nothing_there

DESCRIPTION, TENSORS = "coder.json", "coder.safetensors"


def fetch(address: str, names: Sequence[str]) -> pathlib.Path:
    """The folder of huggingface_hub's cache that has the files of these names, at the address and below.

    With ``HF_HUB_OFFLINE`` set it is what was fetched before.

    Raises:
        HubError: if none of them is there, or they cannot be had.
        UnwritableError: if the disk has no room for them.
    """
    from huggingface_hub import is_offline_mode

    asked = Address.parse(address)
    if is_offline_mode():
        return fetched_before(asked, names)
    listing = list_files(asked)
    files = [listing.files[path] for path in meant(asked, listing.files, names)]
    if not files:
        raise nothing_there(asked, f"holds {_lacking(names)}")
    return into_cache(listing, files) / asked.path


def meant(asked: Address, paths: Iterable[str], names: Sequence[str]) -> list[str]:
    """Of paths from the top of a repository, those that fit one of the names below an address."""
    return [path for path in paths if (own := asked.below(path)) is not None and matches(own, names)]


def fetched_before(asked: Address, names: Sequence[str]) -> pathlib.Path:
    """What ``fetch`` gives without a network.

    Raises:
        HubError: if none of the files was fetched, or of a coder its description alone.
    """
    snapshot = _snapshot(asked)
    found = meant(asked, paths_below(snapshot), names) if snapshot else []
    tensors = [path.removesuffix(DESCRIPTION) + TENSORS for path in found if path.endswith(DESCRIPTION)]
    lacking = [path for path in meant(asked, tensors, names) if path not in found]
    if snapshot is None or not found or lacking:
        raise HubError(
            f"{lacking[0] if lacking else 'it'} was not fetched before, and HF_HUB_OFFLINE is set",
            where=str(asked),
            next="unset HF_HUB_OFFLINE, and run the same command once",
        )
    return snapshot / asked.path


def _snapshot(asked: Address) -> pathlib.Path | None:
    """The folder that the cache has for a revision, however much is in it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        # no pattern: which files are missing of the repository is of no concern here
        return pathlib.Path(
            snapshot_download(asked.repo, revision=asked.revision, local_files_only=True, allow_patterns=[])
        )
    except LocalEntryNotFoundError:
        return None


def paths_below(folder: pathlib.Path) -> Iterator[str]:
    """Of all files, relative to the folder, in the order of names."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def _lacking(names: Sequence[str]) -> str:
    of_coders = any(name.endswith(DESCRIPTION) for name in names)
    return (
        "no trained coder of qsae"
        if of_coders
        else "no file of a checkpoint (safetensors, npz, pt, json, ...)"
    )
