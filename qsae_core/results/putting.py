"""What is complete takes the place of what is there, or of nothing: the last two steps of writing. Imports no
torch."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib

from qsae_core.errors import ConfigError

SWAPS = 100
"""How often a folder's place is fought for."""


def swap(new: pathlib.Path, path: pathlib.Path, holder: pathlib.Path) -> None:
    """Put a folder in the place of another one, which goes into ``holder``; where it cannot, that stays.

    Another process that does the same may take away what was there, or come first with its own: then again.
    """
    for attempt in range(SWAPS):
        old = holder / f"old{attempt}"
        try:
            with contextlib.suppress(FileNotFoundError):
                path.rename(old)
            new.rename(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt + 1 == SWAPS:
                raise
        finally:
            if old.exists() and not path.exists():
                with contextlib.suppress(OSError):  # another one's is there by now
                    old.rename(path)


def put(new: pathlib.Path, path: pathlib.Path) -> None:
    """Put a file or folder where nothing is: the system does it for one process alone.

    Raises:
        ConfigError: if something is there.
    """
    try:
        if new.is_dir():
            new.rename(path)  # takes the place of an empty folder, and of nothing else
        else:
            _put_file(new, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise ConfigError(
            "something of that name was written by another process in the meantime, and stays as it is",
            where=str(path),
            allowed="one writer of a path",
            next="choose another --out",
        ) from error


def _put_file(new: pathlib.Path, path: pathlib.Path) -> None:
    try:
        os.link(new, path)
    except FileExistsError:
        raise
    except OSError:  # some file systems have no links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        new.replace(path)
