"""Atomic writing: a file or folder is complete under its name, or not there at all. Imports no torch."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import safetensors

from qsae_core.errors import ArtifactError, ConfigError, UnwritableError
from qsae_core.launched import is_another, is_gone
from qsae_core.results.hidden_names import SUFFIX, beside, short, temporary_beside, writer_of
from qsae_core.results.putting import put, swap

COPY = "copy the whole folder again from its source"
"""What helps where a file of a stored coder is damaged."""


@contextlib.contextmanager
def atomic_file(path: pathlib.Path, *, fresh: bool = False) -> Iterator[pathlib.Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends well, else remove it.

    Args:
        fresh: take the place of nothing.

    Raises:
        UnwritableError: when the disk is full or the folder cannot be written.
        ConfigError: with ``fresh``, if something is there when the block ends.
    """
    temporary = temporary_beside(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            mode = _mode_of_new_files(temporary)
            yield temporary
            temporary.chmod(mode)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            if fresh:
                put(temporary, path)
            else:
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(folder: pathlib.Path) -> None:
    """Find out before something takes long whether it can be written to a folder, or one be made there.

    Raises:
        UnwritableError: when it cannot.
    """
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    with disk_errors(folder), tempfile.NamedTemporaryFile(dir=there, prefix=".", suffix=SUFFIX) as file:
        file.write(b"0" * 4096)


@contextlib.contextmanager
def atomic_folder(path: pathlib.Path, *, fresh: bool = False) -> Iterator[pathlib.Path]:
    """``swapped_folder`` of a block that only writes files: what the disk refuses is an UnwritableError."""
    with disk_errors(path), swapped_folder(path, fresh=fresh) as temporary:
        yield temporary


@contextlib.contextmanager
def swapped_folder(path: pathlib.Path, *, fresh: bool = False) -> Iterator[pathlib.Path]:
    """``swapped`` of a folder, which is there and empty."""
    with swapped(path, fresh=fresh) as new:
        new.mkdir()
        yield new


@contextlib.contextmanager
def swapped(path: pathlib.Path, *, fresh: bool = False) -> Iterator[pathlib.Path]:
    """Give where to write the file or folder that becomes ``path`` when the block ends well; until then what
    is there stays. It has the name of ``path``.

    When the block fails or is interrupted, nothing has changed: no file, and no folder on the way to it. Of
    several processes that end such a block for one path, the last one's is there in the end; with ``fresh``
    the first one's.

    Args:
        fresh: take the place of nothing but an empty folder.

    Raises:
        UnwritableError: when folders cannot be made or renamed; what the block raises stays as it is.
        ConfigError: with ``fresh``, if another process of this machine is writing to the path, or something
            is there when the block ends.
    """
    if fresh:
        _check_not_written(path)
    with disk_errors(path), contextlib.suppress(FileNotFoundError):
        path.lstat()  # a name that no system takes is refused before anything is made
    missing = [parent for parent in path.parents if not parent.exists()]
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = pathlib.Path(tempfile.mkdtemp(prefix=f"{beside(path)}.", suffix=SUFFIX, dir=path.parent))
    new = holder / "new" / path.name
    try:
        new.parent.mkdir()
        yield new
        with disk_errors(path):
            mode = _mode_of_new_files(holder / "any")
            for written in [new, *new.rglob("*")]:
                if written.is_file() and not written.is_symlink():
                    written.chmod(mode)
            if fresh:
                put(new, path)
            else:
                swap(new, path, holder)
    finally:
        shutil.rmtree(holder, ignore_errors=True)
        with contextlib.suppress(OSError):  # a folder that is not empty stays
            for parent in missing:
                parent.rmdir()


def _check_not_written(path: pathlib.Path) -> None:
    """Refuse a path to which a process of this machine is writing; which of two is first when both begin at
    once, ``put`` decides."""
    with disk_errors(path):
        names = os.listdir(path.parent) if path.parent.is_dir() else []
    for left in filter(None, map(writer_of, names)):
        if left[0] == short(path.name) and is_another(left[1]):
            raise ConfigError(
                f"process {left[1]['pid']} of this machine is writing it",
                where=str(path),
                allowed="one writer of a path",
                next="wait for it, or choose another --out",
            )


def _mode_of_new_files(path: pathlib.Path) -> int:
    """Permissions of any new file; ``path`` is made for that. Some libraries (safetensors' save_file) make
    files that nobody else may read."""
    path.touch()
    return path.stat().st_mode


def remove_leftovers(folder: pathlib.Path) -> None:
    """Remove what processes of this machine that were killed left half written in a folder, or below it."""
    for path in sorted(folder.rglob(f".*{SUFFIX}")):
        found = writer_of(path.name)
        if found and is_gone(found[1]):
            with disk_errors(path):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(path: pathlib.Path) -> Iterator[None]:
    """A block that writes to ``path``.

    Raises:
        UnwritableError: for what the disk refuses.
    """
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        raise unwritable(path, error) from error


def unwritable(path: pathlib.Path, error: BaseException) -> UnwritableError:
    """The error for what a disk refused."""
    full = is_full(error)
    free = "free some space or " if full else ""
    return UnwritableError(
        "the disk is full" if full else f"cannot be written: {error}",
        where=str(path),
        next=f"{free}choose another folder with --out; what was complete before is untouched",
    )


def is_full(error: BaseException | None) -> bool:
    """Whether there was no space left, which an error says or the one that it came from."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            return True
        error = error.__cause__
    return False


def write_json(path: pathlib.Path, value: Any, *, fresh: bool = False) -> None:
    """Write JSON atomically, with keys in the order given; NaN and infinities are refused. ``fresh`` as
    ``atomic_file`` takes it."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with atomic_file(path, fresh=fresh) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: pathlib.Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: if it is not there, cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError("there is no such file", where=str(path)) from error
    except OSError as error:
        raise ArtifactError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            allowed="a JSON file that you may read",
            next=COPY,
        ) from error
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(
            f"is not valid JSON ({error})",
            where=str(path),
            allowed="the file as qsae wrote it",
            next=COPY,
        ) from error
