"""Names under which processes write files and folders until these are complete. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import socket
from typing import Any

SUFFIX = ".tmp"
"""Of what is written, until it is complete: a hidden name with the machine and the process behind it."""
LONGEST_SHOWN = 100
"""Bytes of a name that are part of the hidden one."""


def temporary_beside(path: pathlib.Path) -> pathlib.Path:
    """Where this process writes a file until it is complete; ``remove_leftovers`` knows such names."""
    return path.with_name(f"{beside(path)}{SUFFIX}")


def beside(path: pathlib.Path) -> str:
    """The hidden name of what this process writes for a path, without its end."""
    return f".{short(path.name)}.{_system()}.{os.getpid()}"


def short(name: str) -> str:
    """A name that leaves room for what is added to it, in the 255 bytes that systems take."""
    data = os.fsencode(name)
    return name if len(data) <= LONGEST_SHOWN else hashlib.sha256(data).hexdigest()[:32]


def writer_of(name: str) -> tuple[str, dict[str, Any]] | None:
    """Of what a process of this machine writes: ``short`` of the name that it is to have; the process."""
    found = re.fullmatch(rf"\.(.+)\.{re.escape(_system())}\.(\d+)(\.[^.]+)?{re.escape(SUFFIX)}", name)
    return None if found is None else (found[1], {"host": socket.gethostname(), "pid": int(found[2])})


def _system() -> str:
    """By which the processes' numbers of this machine, or container, are told from those of others."""
    try:
        return f"{socket.gethostname()}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # a system without such namespaces
        return socket.gethostname()
