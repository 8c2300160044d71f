"""Which file is read: a regular one, within its folder. Imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import pathlib
import stat
from collections.abc import Iterator

from qsae_core.errors import ArtifactError

BLOCK = 2**20
MOST_ENTRIES = 10_000
"""Of a folder, that are looked at for links."""


def file_in(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The path of a file within a folder, by a name that may come from the folder's own files.

    A link that leads out of the folder is refused, but for those of the Hugging Face Hub's cache, whose
    snapshots are links to the blobs beside them.

    Raises:
        ArtifactError: if there is no such file, it is none that can be read, or it is elsewhere.
    """
    path = folder / name
    if pathlib.PurePath(name).is_absolute() or ".." in pathlib.PurePath(name).parts or "\0" in name:
        raise ArtifactError(f"names the file {name!r}, which is not in the folder", where=str(folder))
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise ArtifactError("there is no such file", where=str(path)) from error
    if not stat.S_ISREG(mode):
        raise ArtifactError("is no regular file", where=str(path), allowed="a file")
    here = folder.resolve()
    if not (real.is_relative_to(here) or _is_blob(here, real)):
        raise ArtifactError(
            f"is a link out of the folder, to {real}", where=str(path), next="copy the file to its place"
        )
    return path


def links_out(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Links in a folder, or in folders of it, that lead out of it: ``file_in`` follows none of these."""
    here = folder.resolve()
    for path in sorted(itertools.islice(_entries(folder), MOST_ENTRIES)):
        if path.is_symlink():
            real = pathlib.Path(os.path.realpath(path))  # pathlib's raises where links lead in a circle
            if not (real.is_relative_to(here) or _is_blob(here, real)):
                yield path


def _entries(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            yield path
            if path.is_dir() and not path.is_symlink():
                yield from path.iterdir()


def is_file_in(folder: pathlib.Path, name: str) -> bool:
    """Whether ``file_in`` gives one."""
    try:
        file_in(folder, name)
    except ArtifactError:
        return False
    return True


def the_file(path: pathlib.Path) -> pathlib.Path:
    """A path that the user gave, if a regular file is there.

    Raises:
        ArtifactError: if not.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise ArtifactError("there is no such file, or it cannot be read", where=str(path)) from error
    if not stat.S_ISREG(mode):
        raise ArtifactError("is no regular file", where=str(path), allowed="a file")
    return path


def sha256_of(path: pathlib.Path) -> str:
    """Of a file's bytes, read a block at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _is_blob(folder: pathlib.Path, real: pathlib.Path) -> bool:
    """Whether a file is a blob of the cached repository that a folder is a snapshot of."""
    for parent in (folder, *folder.parents):
        if parent.name == "snapshots":
            return real.parent == parent.parent / "blobs"
    return False
