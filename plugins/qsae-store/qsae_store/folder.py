"""Where a store lies: a folder on disk, or one behind a URL. Nothing here needs torch."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol
from urllib.parse import unquote

from qsae_core.errors import DataError
from qsae_core.runs import atomic_file, remove_leftovers, temporary_beside

Fill = Callable[[pathlib.Path], None]
"""Writes a file at a path."""
_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


VERIFIED = (
    "qsae cache verify DIR --drop removes what is damaged; the command that wrote the store writes it again"
)
"""What helps where a file of a store is not as it was written."""


class DamagedError(DataError):
    """A file that is there and whose bytes are lost: not reading but writing it again helps."""


class Folder(Protocol):
    """Files by their names; a file is there whole or not at all.

    What a disk or a server refuses is a QsaeError, a DataError where something is read.
    """

    place: str
    """What errors call it."""
    mended: str
    """What helps where a file at a ``local`` path is damaged."""

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of every file; none where there is no such folder."""

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where it is not there."""

    def read(self, name: str) -> bytes:
        """A small file.

        Raises:
            DataError: if it cannot be read.
        """

    def write(self, name: str, fill: Fill) -> None:
        """Make a file, or replace it.

        Raises:
            QsaeError: where the disk or the server refuses; nothing of it is there then.
        """

    def create(self, name: str, fill: Fill) -> bool:
        """Make a file unless it is there: of several processes that do so at the same time one gets True, as
        far as the place can tell."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def sha256(self, name: str) -> str:
        """Hexadecimal digest of a file, as it is there now."""

    def local(self, name: str, sha256: str) -> pathlib.Path:
        """A path on this machine with the bytes of a file.

        Args:
            sha256: its digest when it was written. A copy that is made is compared with it; a file on disk is
                not.

        Raises:
            DataError: if it is not there, or its copy is another file.
        """

    def clean(self) -> None:
        """Remove what interrupted writers have left."""

    def one_by_one(self, name: str) -> AbstractContextManager[None]:
        """A block that is one process's at a time, of all those that name this file, which is there; where
        that cannot be had, as behind a URL, it is a block like any other."""


def open_folder(place: str, cache: str | None = None) -> Folder:
    """The folder at a path or URL; it need not exist.

    Args:
        cache: folder for copies of what is behind a URL; None: the user's cache folder.

    Raises:
        DataError: if it is a file, or what reads such URLs is not installed.
    """
    if place.lower().startswith("file:"):
        place = _path_of(place)
    if _URL.match(place):
        from qsae_store.url_folder import UrlFolder

        return UrlFolder(place, cache)
    path = pathlib.Path(place).expanduser()
    if os.path.exists(path) and not path.is_dir():
        raise DataError("this is no folder", where=place, allowed="the folder of a store")
    return LocalFolder(path)


def _path_of(url: str) -> str:
    """The path that a URL of this machine names."""
    rest = url[len("file:") :]
    host, _, path = rest[2:].partition("/") if rest.startswith("//") else ("", "", rest.removeprefix("/"))
    if host.lower() not in ("", "localhost"):
        raise DataError(
            f"a file: URL is of this machine, not of {host!r}",
            where=url,
            allowed="file:///an/absolute/path, or a path",
            next=f"file:///{host}/{path}, if that is meant",
        )
    return f"/{unquote(path)}"


class LocalFolder:
    """A folder on disk."""

    mended = VERIFIED

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.place = path, str(path)

    def sizes(self) -> dict[str, int]:
        """Every file but hidden ones."""
        with os_errors(self.path):
            if not self.path.is_dir():
                return {}
            shown = (entry for entry in os.scandir(self.path) if not entry.name.startswith("."))
            return {entry.name: entry.stat().st_size for entry in shown}

    def size(self, name: str) -> int | None:
        """Bytes of a file."""
        with os_errors(self.path / name):
            try:
                return (self.path / name).stat().st_size
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes:
        """A small file."""
        with os_errors(self.path / name):
            return (self.path / name).read_bytes()

    def write(self, name: str, fill: Fill) -> None:
        """In a temporary folder first, for some libraries make files of their own beside it; then renamed."""
        with atomic_file(self.path / name) as temporary:
            folder = temporary.with_name(f".folder{temporary.name}")
            try:
                folder.mkdir(exist_ok=True)
                fill(folder / name)
                (folder / name).replace(temporary)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def create(self, name: str, fill: Fill) -> bool:
        """By a second name for a complete file; where a file system has none, by looking first."""
        path, own = self.path / name, temporary_beside(self.path / f"{name}.new")
        self.write(own.name, fill)
        try:
            os.link(own, path)
        except FileExistsError:
            return False
        except OSError:
            if path.exists():
                return False
            self.write(name, fill)
        finally:
            self.remove(own.name)
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with os_errors(self.path / name, "cannot be removed"):
            (self.path / name).unlink(missing_ok=True)

    def sha256(self, name: str) -> str:
        """Digest of the file."""
        with os_errors(self.path / name):
            return sha256_of(self.path / name)

    def local(self, name: str, sha256: str) -> pathlib.Path:
        """The file itself."""
        path = self.path / name
        with os_errors(path):
            if not path.is_file():
                raise missing(str(path))
        return path

    def clean(self) -> None:
        """Temporary files and folders of this machine whose writers are no more."""
        remove_leftovers(self.path)

    @contextlib.contextmanager
    def one_by_one(self, name: str) -> Iterator[None]:
        """By a lock, which ends with its process; some network file systems have none."""
        with os_errors(self.path / name):
            file = os.open(self.path / name, os.O_RDWR | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def sha256_of(path: pathlib.Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


@contextlib.contextmanager
def os_errors(path: pathlib.Path, what: str = "cannot be read") -> Iterator[None]:
    """A block in which what the disk refuses is a DataError; a bad sector a DamagedError.

    Args:
        path: of the file or folder.
        what: happens to it.
    """
    try:
        yield
    except OSError as error:
        kind = DamagedError if error.errno == errno.EIO else DataError
        raise kind(
            f"{what}: {error.strerror or error}",
            where=str(path),
            allowed="a disk that gives every file of the store, and files that you may read",
            next="qsae cache verify DIR, once the disk is well again, says what is damaged",
        ) from error


def missing(where: str) -> DataError:
    """The error for a file that is not there."""
    return DataError(
        "is missing",
        where=where,
        allowed="the store as qsae cache wrote it",
        next="qsae cache verify DIR lists what is missing; the command that wrote the store writes it again",
    )


def altered(where: str, mended: str = VERIFIED) -> DataError:
    """The error for a file whose bytes are others than those that were written.

    Args:
        mended: ``Folder.mended``.
    """
    return DataError(
        "has been altered since it was written: its checksum is another one",
        where=where,
        allowed="the store as qsae cache wrote it",
        next=mended,
    )
