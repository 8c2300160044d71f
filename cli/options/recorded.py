"""The configuration that a stored coder was trained with, as a command that takes its PATH begins with it."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from qsae_core.config.layers import Layer
from qsae_core.kinds import CODER_SLOTS, PART_SLOTS


def recorded(values: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """The configuration and the file that holds it; None where PATH is not given.

    Args:
        values: the command's own arguments, ``path`` among them; for ``--help`` a flag stands in its place.
    """
    from qsae_core.artifact.description import DESCRIPTION, usable_description
    from qsae_core.artifact.places import first_folder, stored_folder
    from qsae_core.plugins.records import load_plugins

    path = values.get("path")
    if path is None or str(path).startswith("-"):
        return None
    folder = first_folder(stored_folder(pathlib.Path(path)))
    config: dict[str, Any] = usable_description(folder, load_plugins().registry)["config"]
    return config, str(folder / DESCRIPTION)


def recorded_data(values: Mapping[str, Any]) -> list[Layer]:
    """The lowest layer of a command on the data of the coder at PATH: ``base`` of its ``ConfiguredCommand``.

    The coder, its parts, the data and the seed are those that are recorded.

    Args:
        values: as ``recorded`` takes them.
    """
    found = recorded(values)
    if found is None:
        return []
    config, file = found
    kept = {slot: config[slot] for slot in (*CODER_SLOTS, *PART_SLOTS, "data") if slot in config}
    return [Layer({**kept, "run": {"seed": config["run"]["seed"]}}, file, fallback=True)]


def model_flags(path: pathlib.Path) -> str:
    """What names the language model whose vectors the coder at PATH is for, with their places as far as they
    are recorded, as after ``qsae import`` and with saved vectors that say so; else what is to be said."""
    from qsae_core.artifact.places import stored_description, stored_folder
    from qsae_core.contracts.provenance import Provenance

    known = Provenance.of_record(stored_description(stored_folder(path))["source"])
    if known.model is None or not known.sources or not known.targets:  # saved vectors may have any name
        return "--model NAME --layer N --site SITE"
    model, reads, writes = f"--model {known.model}", known.sources, known.targets
    if len(reads) > 1 or len(writes) > 1:
        return f"{model}, with the layers and sites {', '.join(reads)}"
    (layer, _, site), (to_layer, _, to_site) = reads[0].partition("."), writes[0].partition(".")
    if reads == writes:
        return f"{model} --layer {layer} --site {site}"
    places = ("source", layer, site), ("target", to_layer, to_site)
    return f"{model} {' '.join(f'--{side}-layer {at} --{side}-site {name}' for side, at, name in places)}"


def check_data(path: pathlib.Path, layers: Sequence[Layer]) -> None:
    """Refuse a coder that was imported without data, where no data is chosen now either.

    Args:
        layers: the command's, the recorded one first.

    Raises:
        ConfigError: with what to choose.
    """
    from qsae_core.artifact.description import check_data_known
    from qsae_core.artifact.places import stored_description, stored_folder

    folder = stored_folder(path)
    chosen = any("data" in layer.tree for layer in layers[1:])
    check_data_known(stored_description(folder), chosen, str(folder))
