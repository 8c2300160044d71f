"""The files of one name in a folder and below it."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping

from qsae_core.errors import ArtifactError

DEPTH = 8
"""Folders below a folder that are looked into: a repository in the Hub's cache has six."""
MOST_ENTRIES = 100_000
"""Files and folders that are looked at; the largest repository has some thousands."""


def files_below(folder: pathlib.Path, *names: str) -> Iterator[pathlib.Path]:
    """Those of these names, without what is hidden or behind links to folders, in a fixed order.

    Raises:
        ArtifactError: if there is too much to look at.
    """
    n_entries = 0
    for place, folders, files in os.walk(folder):
        here = pathlib.Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        n_entries += len(folders) + len(files)
        if n_entries > MOST_ENTRIES:
            raise ArtifactError(
                f"has more than {MOST_ENTRIES:,} files",
                where=str(folder),
                next=f"give the folder of one coder, with {' or '.join(names)}",
            )
        yield from (here / name for name in sorted(files) if name in names)
        if len(here.relative_to(folder).parts) >= DEPTH:
            folders.clear()


def by_layer(found: Mapping[pathlib.Path, str | None], folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name of the layer -> path, in the order of layers; other names first.

    Args:
        found: path -> the name of its layer, if there is one.

    Raises:
        ArtifactError: if one has none, or two have the same.
    """
    named: dict[str, pathlib.Path] = {}
    for path, name in found.items():
        if name is None:
            raise ArtifactError(
                "neither its folders nor its settings say of which layer it is",
                where=str(path),
                next="give the path of one coder",
            )
        if name in named:
            raise ArtifactError(
                f"has several coders of layer {name}: {named[name]} and {path}",
                where=str(folder),
                allowed="one for each layer",
                next="give the path of one coder, or a folder with one for each layer",
            )
        named[name] = path
    return dict(sorted(named.items(), key=lambda item: (item[0].isdecimal(), item[0].zfill(9))))
