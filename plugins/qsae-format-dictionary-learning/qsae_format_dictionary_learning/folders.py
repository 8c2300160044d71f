"""Folders of several coders, as training writes them: ``SUBMODULE/trainer_0/ae.pt``, ``trainer_1/ae.pt``."""

from __future__ import annotations

import pathlib
import re
from typing import Any

from qsae_core.errors import ArtifactError
from qsae_core.reading import is_file_in, json_settings
from qsae_format_dictionary_learning.settings import dict_class, layer_of, section

WEIGHTS, CONFIG = "ae.pt", "config.json"
DEPTH = 2
"""Folders within one another that are looked into."""
MOST_SHOWN = 20


def coders_below(path: pathlib.Path, depth: int = DEPTH) -> list[pathlib.Path]:
    """Folders with an ``ae.pt``, numbers in their names in order; not those within one of these."""
    found: list[pathlib.Path] = []
    try:
        folders = [place for place in path.iterdir() if place.is_dir()]
    except OSError:  # a file, nothing, or a folder that may not be read
        return found
    for folder in sorted(folders, key=_natural):
        if is_file_in(folder, WEIGHTS):
            found.append(folder)
        elif depth > 1:
            found += coders_below(folder, depth - 1)
    return found


def by_layer(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """Layer -> folder, of a folder of one coder for each of several layers.

    Raises:
        ArtifactError: if layers are not known, or there are several coders of one; with a list of them.
    """
    folders = coders_below(path)
    configs = [_config(folder) for folder in folders]
    layers = [layer_of(config, str(folder)) for config, folder in zip(configs, folders, strict=True)]
    known = [layer for layer in layers if layer is not None]
    if len(set(known)) < len(folders):
        shown = [f"{f.relative_to(path)} ({_words(c)})" for f, c in zip(folders, configs, strict=True)]
        more = f" and {len(shown) - MOST_SHOWN} more" if len(shown) > MOST_SHOWN else ""
        raise ArtifactError(
            f"it holds several coders, not each of a layer of its own: {', '.join(shown[:MOST_SHOWN])}{more}",
            where=str(path),
            allowed="one coder, or one for each of several layers (trainer.layer in config.json)",
            next=f"import one of them: {folders[0]}",
        )
    return {str(layer): folder for layer, folder in sorted(zip(known, folders, strict=True))}


def _config(folder: pathlib.Path) -> dict[str, Any]:
    return json_settings(folder / CONFIG) if is_file_in(folder, CONFIG) else {}


def _words(config: dict[str, Any]) -> str:
    trainer = section(config, "trainer", CONFIG)
    parts = [dict_class(trainer) or "no class", f"layer {trainer.get('layer')}"]
    return ", ".join(
        parts + [f"{name} {trainer[name]}" for name in ("dict_size", "k", "lr") if name in trainer]
    )


def _natural(path: pathlib.Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() and len(part) < 20 else (-1, part) for part in parts]
