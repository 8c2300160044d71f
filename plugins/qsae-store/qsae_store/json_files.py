"""JSON files of a store, written whole or not at all. Imports no torch."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from qsae_core.errors import DataError
from qsae_store.folder import Folder


def write_text(folder: Folder, name: str, text: str) -> None:
    """A text file, whole or not at all."""

    def fill(path: pathlib.Path) -> None:
        path.write_text(text, encoding="utf-8")

    folder.write(name, fill)


def read_json(folder: Folder, name: str) -> dict[str, Any]:
    """The mapping in a file; raises ``unreadable`` for anything else."""
    try:
        tree = json.loads(folder.read(name))
    except (ValueError, RecursionError) as error:
        raise unreadable(f"{folder.place}: {name}", error) from error
    if not isinstance(tree, dict):
        raise unreadable(f"{folder.place}: {name}", TypeError(f"a {type(tree).__name__}"))
    return tree


def unreadable(where: str, error: Exception) -> DataError:
    """The error for a file that is damaged, or that another version wrote."""
    return DataError(
        f"cannot be read ({type(error).__name__}: {error})",
        where=where,
        allowed="the file as qsae cache wrote it",
        next="copy the store again from its source; "
        "where another version of qsae-store wrote it, harvest anew",
    )
