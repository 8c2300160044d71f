"""JSON files of a store, written whole or not at all. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import pathlib
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from qsae_store.folder import DamagedError, Fill, Folder

T = TypeVar("T")
DIGEST = "digest"
"""Of everything else in a file that has it."""
MANIFEST = "manifest.json"
"""Of the whole store; every other JSON file is the record of a shard."""


def write_text(folder: Folder, name: str, text: str) -> None:
    """A text file, whole or not at all."""
    folder.write(name, _filling(text))


def create_text(folder: Folder, name: str, text: str) -> bool:
    """The same, unless there is one: then False."""
    return folder.create(name, _filling(text))


def _filling(text: str) -> Fill:
    def fill(path: pathlib.Path) -> None:
        path.write_text(text, encoding="utf-8")

    return fill


def read_json(folder: Folder, name: str) -> dict[str, Any]:
    """The mapping in a file, without its digest; raises ``unreadable`` for anything else."""
    try:
        tree = json.loads(folder.read(name))
    except (ValueError, RecursionError) as error:
        raise unreadable(folder, name, error) from error
    if not isinstance(tree, dict):
        raise unreadable(folder, name, TypeError(f"a {type(tree).__name__}"))
    digest = tree.pop(DIGEST, None)
    if digest is not None and digest != digest_of(tree):
        raise unreadable(folder, name, ValueError("has been altered: the checksum in it is another one"))
    return tree


def digest_of(tree: dict[str, Any]) -> str:
    """sha256 of JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def checked(kind: type[T], tree: dict[str, Any]) -> T:
    """A dataclass of what was read.

    Raises:
        ValueError: where an entry is missing, unknown, or of another type, with its name.
    """
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(tree.keys() - known):
        raise ValueError(f"unknown entry {unknown[0]!r}")
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def unreadable(folder: Folder, name: str, error: Exception) -> DamagedError:
    """The error for a file that is damaged, or that another version wrote."""
    mended = (
        "copy the store again from its source; where another version of qsae-store wrote it, harvest anew"
        if name == MANIFEST
        else f"qsae cache verify {folder.place} --drop removes the shard; the command that wrote the store "
        "writes it again"
    )
    return DamagedError(
        f"cannot be read ({type(error).__name__}: {error})",
        where=f"{folder.place}: {name}",
        allowed="the file as qsae cache wrote it",
        next=mended,
    )
