"""What runs came to is kept, so that a benchmark goes on where it stopped, and trains what has changed alone.

A record is found again by all that it depends on: what the side was given, its script and versions, or all of
qsae's source, and the contents of the vectors, never by their path.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

from benchmarks.contenders import SCRIPTS, Contender
from benchmarks.install_peers import requirements
from benchmarks.peers.training import Spec
from benchmarks.settings import ROOT

CHUNK_BYTES = 2**24
SOURCES = ("qsae_core", "cli", "plugins", "benchmarks/qsae_training.py")
SUFFIXES = {".py", ".c", ".h", ".cpp"}
PLACES = {"out", "train", "train_target", "held_out", "threads", "save"}
"""Parts of a ``Spec`` that change no number beyond rounding, or that are known by their content."""


class Kept:
    """The records of one comparison, a file each.

    Args:
        folder: takes the files.
        vectors: the ``.npy`` files of what peers train on and are measured on.
    """

    def __init__(self, folder: pathlib.Path, *vectors: pathlib.Path) -> None:
        self._folder, self._vectors = folder, [digest(path) for path in vectors]

    def record(
        self, contender: Contender, spec: Spec, measure: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """The record that is there, or a new one; what failed is not kept."""
        given = {name: value for name, value in spec._asdict().items() if name not in PLACES}
        texts = [path.read_text() for path in sources(contender.library)]
        key = json.dumps([contender.library, contender.kind, given, self._vectors, texts])
        return keep(self._folder, key, measure)


def keep(
    folder: pathlib.Path, key: str, measure: Callable[[], dict[str, Any]], *, again: bool = False
) -> dict[str, Any]:
    """The record that is there under a key, or a new one; one with an error is not kept.

    Args:
        again: measure in any case.
    """
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    if path.exists() and not again:
        return dict(json.loads(path.read_text()))
    found = measure()
    if not any("error" in attempt for attempt in (found, *found.get("attempts", []))):
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    return found


def sources(library: str) -> list[pathlib.Path]:
    """The files on which a library's side depends, but for the machine and qsae's own dependencies."""
    if library == "qsae":
        roots = [ROOT / source for source in SOURCES]
        files = [path for root in roots for path in (root, *root.rglob("*")) if path.suffix in SUFFIXES]
        return sorted(path for path in files if path.is_file())
    script, peer = SCRIPTS[library]
    return [requirements(peer), *sorted((ROOT / script).parent.glob("*.py"))]


def digest(path: pathlib.Path) -> str:
    """sha256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()
