"""Files of a repository in huggingface_hub's cache: fetched a part at a time, and their checksums compared.

huggingface_hub begins a file anew where a process was killed, and compares sizes alone. So a file is fetched
here, beside the place that it gets, from where an earlier process left off. It takes that place, among the
cache's blobs, whose names are checksums, when its bytes have that checksum; huggingface_hub finds it there.
"""

from __future__ import annotations

import hashlib
import io
import pathlib
import shutil
from collections.abc import Sequence

from qsae_core.errors import UnwritableError
from qsae_hub.errors import AGAIN, HubError, hub_errors
from qsae_hub.remote import Listing, RemoteFile

BLOCK = 2**20
INCOMPLETE = ".qsae.incomplete"
"""Of a file that is being fetched."""


def into_cache(listing: Listing, files: Sequence[RemoteFile]) -> pathlib.Path:
    """The folder of the repository's snapshot in the cache, with these files in it, complete and checked.

    Raises:
        HubError: if one cannot be had, or has other bytes than the Hub says.
        UnwritableError: if the disk has no room for them.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    address, where = listing.address, str(listing.address)
    with hub_errors(where):
        blobs = _blobs(address.repo)
        missing = [file for file in files if not (blobs / file.digest).exists()]
        _check_room(blobs, missing)
        for file in missing:
            _fetch(listing, file, blobs / file.digest)
        checked = {(blobs / file.digest).resolve() for file in missing}
        places = [
            pathlib.Path(hf_hub_download(address.repo, file.path, revision=listing.commit)) for file in files
        ]
        for file, place in zip(files, places, strict=True):
            if place.resolve() not in checked:
                _check(place, file)
        # under the revision's own name too, by which it is found without a network
        named = try_to_load_from_cache(address.repo, files[0].path, revision=address.revision)
        if named != str(places[0]):
            hf_hub_download(address.repo, files[0].path, revision=address.revision)
    return pathlib.Path(str(places[0]).removesuffix(files[0].path))


def contents(listing: Listing, files: Sequence[RemoteFile]) -> dict[str, bytes]:
    """Path -> the bytes of a few small files, by way of the cache; no snapshot is made of them.

    Raises:
        HubError, UnwritableError: as ``into_cache``.
    """
    found = {}
    with hub_errors(str(listing.address)):
        blobs = _blobs(listing.address.repo)
        for file in files:
            blob = blobs / file.digest
            if not blob.exists():
                _fetch(listing, file, blob)
            _check(blob, file)
            found[file.path] = blob.read_bytes()
    return found


def _check(place: pathlib.Path, file: RemoteFile) -> None:
    if digest_of(place, file.digest) != file.digest:
        raise HubError(
            "its copy in the cache is damaged",
            where=str(place.resolve()),
            next=f"rm {place.resolve()}; then {AGAIN}",
        )


def _blobs(repo: str) -> pathlib.Path:
    """Where the cache has the files of a repository, by their checksums; the folder is made."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    blobs = pathlib.Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"), "blobs")
    blobs.mkdir(parents=True, exist_ok=True)
    return blobs


def _check_room(blobs: pathlib.Path, files: Sequence[RemoteFile]) -> None:
    begun = [blobs / f"{file.digest}{INCOMPLETE}" for file in files]
    needed = sum(file.size for file in files) - sum(p.stat().st_size for p in begun if p.exists())
    free = shutil.disk_usage(blobs).free
    if needed > free:
        raise UnwritableError(
            f"{needed:,} bytes are to be fetched, and {free:,} are free",
            where=str(blobs),
            next="free some space, or set HF_HOME to a folder elsewhere",
        )


def _fetch(listing: Listing, file: RemoteFile, blob: pathlib.Path) -> None:
    """Fetch one file, or what is missing of it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import WeakFileLock

    most = constants.MAX_HTTP_DOWNLOAD_SIZE
    if file.size > most:
        raise HubError(
            f"{file.path} has {file.size:,} bytes, and more than {most:,} do not come over HTTP",
            where=str(listing.address),
            next=f"hf download {listing.address.repo} {file.path}; then {AGAIN}",
        )
    lock = pathlib.Path(constants.HF_HUB_CACHE, ".locks", blob.parents[1].name, f"{blob.name}.qsae.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if not blob.exists():  # else another process was first
            _go_on(listing, file, blob)


def _go_on(listing: Listing, file: RemoteFile, blob: pathlib.Path) -> None:
    """Fetch what is missing of a file, and put it among the blobs if it is what the Hub says."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    partial = blob.with_name(f"{blob.name}{INCOMPLETE}")
    with partial.open("ab") as out:
        if out.tell() > file.size:
            out.seek(0)
            out.truncate()
        http_get(
            hf_hub_url(listing.address.repo, file.path, revision=listing.commit),
            out,
            resume_size=out.tell(),
            # as it is stored: a part of what was compressed on the way would be another part
            headers=build_hf_headers(library_name="qsae") | {"Accept-Encoding": "identity"},
            expected_size=file.size,
            displayed_filename=file.path,
        )
    found = digest_of(partial, file.digest)
    if found != file.digest:
        partial.unlink()
        raise HubError(
            f"{file.path} came with checksum {found}, and the Hub says {file.digest}",
            where=str(listing.address),
            next="run the same command again; what came is thrown away. If it stays so, tell its owners",
        )
    partial.replace(blob)


def digest_of(content: pathlib.Path | bytes, like: str) -> str:
    """The checksum of a file or of bytes, of the same kind as another: sha256, or git's sha1 of a blob."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    digest = hashlib.sha256() if len(like) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
