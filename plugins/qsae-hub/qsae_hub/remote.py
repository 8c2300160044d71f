"""What a repository holds at a revision: its commit, and the names, sizes and checksums of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qsae_hub.address import Address, is_inside
from qsae_hub.errors import HubError, hub_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi

COMMIT, DIGEST = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
FINAL = "checkpoints/final"
"""Where a run has its coder, and where every coder lies that was pushed."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository."""

    path: str
    """From the top of the repository."""
    size: int
    digest: str
    """sha256 of its bytes, in hex; of one that git itself holds, the sha1 that git gives it."""


@dataclass(frozen=True)
class Listing:
    """The files of a repository, or of a folder of it, at a commit."""

    address: Address
    commit: str
    private: bool
    files: dict[str, RemoteFile]
    """By their paths from the top of the repository."""


def api() -> HfApi:
    """The Hub's interface, as this plugin uses it."""
    from huggingface_hub import HfApi

    from qsae_core import __version__

    return HfApi(library_name="qsae", library_version=__version__)


def list_files(address: Address, *, whole: bool = False) -> Listing:
    """What is in the folder of an address, or in the whole repository.

    Raises:
        HubError: if it cannot be had, or the Hub says what cannot be.
    """
    from huggingface_hub.errors import EntryNotFoundError

    where = str(address)
    folder = None if whole else address.path or None
    with hub_errors(where):
        hub = api()
        info = hub.model_info(address.repo, revision=address.revision)
        commit = info.sha or ""
        if not COMMIT.fullmatch(commit):
            raise HubError(f"the Hub names the commit {commit!r}, which is none", where=where)
        try:
            found = _files(hub, address, commit, folder)
        except EntryNotFoundError:
            found = {}
    if not found and folder is not None:
        raise nothing_there(address, "has no such folder")
    return Listing(address, commit, bool(info.private), found)


def _files(hub: HfApi, address: Address, commit: str, folder: str | None) -> dict[str, RemoteFile]:
    from huggingface_hub.hf_api import RepoFile

    found = {}
    for entry in hub.list_repo_tree(address.repo, folder, recursive=True, revision=commit):
        if not isinstance(entry, RepoFile):
            continue
        digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
        inside = is_inside(entry.path) and (folder is None or entry.path.startswith(f"{folder}/"))
        if not inside or not DIGEST.fullmatch(digest) or entry.size < 0:
            raise HubError(
                f"the Hub lists the file {entry.path!r} with checksum {digest!r}, which cannot be",
                where=str(address),
                next="fetch nothing of it, and tell its owners",
            )
        found[entry.path] = RemoteFile(entry.path, entry.size, digest)
    return found


def nothing_there(address: Address, what: str) -> HubError:
    """The error for an address with nothing of what is looked for; it names the coders that there are, or
    folders near by."""
    files = list_files(Address(address.repo, address.revision)).files
    there = coders_among(files) or _near(address.path, files)
    shown = [str(Address(address.repo, address.revision, path)) for path in there]
    last = address.path.rpartition("/")[2]
    behind = f"; a revision stands behind the repository: {address.repo}@{last.partition('@')[2]}/..."
    return HubError(
        what + (behind if "@" in last else ""), where=str(address), allowed=_some(shown) if shown else None
    )


def _near(path: str, files: Iterable[str]) -> list[str]:
    """Folders in the deepest folder of a path that there is."""
    parts = path.split("/") if path else []
    for n in range(len(parts), -1, -1):
        start = "".join(f"{part}/" for part in parts[:n])
        below = [file.removeprefix(start) for file in files if file.startswith(start)]
        if found := sorted({start + rest.partition("/")[0] for rest in below if "/" in rest}):
            return found
    return []


def coders_among(paths: Iterable[str]) -> list[str]:
    """The folders of the coders that ``qsae push`` put into a repository, in the order of their names."""
    ends = tuple(f"{FINAL}/{name}" for name in ("coder.json", "coders.json"))
    roots = {path.removesuffix(end).rstrip("/") for path in paths for end in ends if _ends_in(path, end)}
    return sorted(roots)


def _ends_in(path: str, end: str) -> bool:
    return path == end or path.endswith(f"/{end}")


def _some(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
