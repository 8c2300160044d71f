"""A store behind a URL, by fsspec. Nothing here needs torch."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from qsae_core.errors import DataError, QsaeError
from qsae_core.runs import atomic_file, is_full
from qsae_store.folder import Fill, altered, missing, sha256_of

_PART = 1 << 22
"""Bytes that are hashed at once."""


class UrlFolder:
    """A folder behind a URL, read through copies in a folder on disk, which are made once."""

    def __init__(self, url: str, cache: str | None = None) -> None:
        self.place = url.rstrip("/")
        self._files, self._root = _filesystem(self.place)
        home = pathlib.Path(cache).expanduser() if cache else _cache_home()
        self._copies = home / hashlib.sha256(self.place.encode()).hexdigest()[:16]
        self.mended = f"delete {self._copies}, whose files are copied again when they are needed"

    def sizes(self) -> dict[str, int]:
        """Every file."""
        self._files.invalidate_cache()
        with self._errors(self.place):
            try:
                found = self._files.ls(self._root, detail=True)
            except FileNotFoundError:
                return {}
        return {
            entry["name"].rsplit("/", 1)[-1]: int(entry["size"]) for entry in found if entry["type"] == "file"
        }

    def size(self, name: str) -> int | None:
        """Bytes of a file."""
        with self._errors(name):
            try:
                return int(self._files.size(self._at(name)))
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes:
        """A small file."""
        with self._errors(name):
            return bytes(self._files.cat_file(self._at(name)))

    def write(self, name: str, fill: Fill) -> None:
        """On disk first, then all of it at once."""
        with tempfile.TemporaryDirectory(prefix="qsae-") as folder:
            path = pathlib.Path(folder) / name
            with atomic_file(path) as temporary:
                fill(temporary)
            with self._errors(name):
                self._files.put_file(str(path), self._at(name))
        self._files.invalidate_cache()

    def create(self, name: str, fill: Fill) -> bool:
        """By looking first: a server need not have more."""
        if self.size(name) is not None:
            return False
        self.write(name, fill)
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._errors(name), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._at(name))

    def sha256(self, name: str) -> str:
        """Digest of what is behind the URL, whatever copies there are."""
        digest = hashlib.sha256()
        with self._errors(name), self._files.open(self._at(name), "rb") as file:
            while part := file.read(_PART):
                digest.update(part)
        return digest.hexdigest()

    def local(self, name: str, sha256: str) -> pathlib.Path:
        """A copy of the file, which is known by its digest."""
        path = self._copies / f"{sha256[:16]}-{name}"
        if not path.is_file():
            if self.size(name) is None:
                raise missing(f"{self.place}/{name}")
            try:
                with atomic_file(path) as temporary:
                    with self._errors(name):
                        self._files.get_file(self._at(name), str(temporary))
                    if sha256_of(temporary) != sha256:
                        raise altered(f"{self.place}/{name}")
            except QsaeError as error:
                if is_full(error):
                    error.next = "free some space, or --cache-dir with a folder on another disk"
                raise
        return path

    def clean(self) -> None:
        """Nothing: what was not written whole is not there."""

    def one_by_one(self, name: str) -> contextlib.AbstractContextManager[None]:
        """A block like any other."""
        return contextlib.nullcontext()

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except (QsaeError, FileNotFoundError):
            raise
        except Exception as error:  # every protocol has exceptions of its own
            if is_full(error):  # of this machine's disk
                raise
            raise DataError(
                f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                where=f"{self.place}: {name}",
                allowed="a URL that may be read and written with the credentials that are set",
            ) from error


def _filesystem(url: str) -> tuple[Any, str]:
    protocol = url.split("://", 1)[0]
    try:
        import fsspec
    except ImportError as error:
        raise DataError(
            "reading a URL needs the library `fsspec`, which is not installed",
            where=url,
            next="pip install 'qsae-store[urls]', or 'qsae-store[s3]' for s3://",
        ) from error
    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(
            f"URLs of the kind {protocol}:// cannot be read: {error}",
            where=url,
            allowed=", ".join(sorted(fsspec.available_protocols())),
            next="pip install s3fs for s3://, gcsfs for gs://",
        ) from error
    return files, str(root).rstrip("/")


def _cache_home() -> pathlib.Path:
    try:
        import platformdirs
    except ImportError as error:
        raise DataError(
            "where this user's cache is, is asked of the library `platformdirs`, which is not installed",
            where="--cache-dir",
            allowed="a folder for the copies",
            next="pip install 'qsae-store[urls]', or --cache-dir DIR",
        ) from error
    return platformdirs.user_cache_path("qsae") / "stores"
