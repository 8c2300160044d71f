"""Whether data fits a stored coder, and which of its layers."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from qsae_core.coders.coder_set import CoderSet
from qsae_core.compose.setup import shape_of
from qsae_core.contracts.coder import CoderShape, SparseCoder
from qsae_core.contracts.data import DataSource
from qsae_core.contracts.one_layer import OneLayer
from qsae_core.errors import DataError


def data_of(
    coder: SparseCoder, data: DataSource, folder: pathlib.Path, description: Mapping[str, Any]
) -> DataSource:
    """The data as a stored coder reads it: all of it, or where it was trained as one of several layers, and
    these are read here, its own.

    Args:
        coder: or all of several.
        description: ``coder.json``, of several the first one's.

    Raises:
        DataError: if its widths or layers are not the coder's, with both.
    """
    if isinstance(coder, CoderSet):
        check_set(coder, data, folder)
        return data
    layer = description["source"].get("layer")
    if data.layers_in > 1 and coder.shape.layers_in == 1 and layer in data.layer_names:
        data = OneLayer(data, data.layer_names.index(layer))
    check_shape(coder.shape, data, folder)
    return data


def of_other_sites(data: DataSource, description: Mapping[str, Any], *, several: bool = False) -> str | None:
    """A sentence where data is known to be of other sites than a coder's (``coder.json``) was; else None.

    Args:
        several: whether there is a coder for each layer of the data, and the description is the first one's.
    """
    data = OneLayer(data, 0) if several else data
    before, now = (
        [source.get(side) or [] for side in ("source_sites", "target_sites")]
        for source in (description["source"], data.describe())
    )
    if before == now or not all([*before, *now]):
        return None
    return f"this coder was trained on vectors of {_places(*before)}, and those here are of {_places(*now)}"


def _places(sources: Sequence[str], targets: Sequence[str]) -> str:
    names = ", ".join(sources)
    return names if sources == targets else f"{names} -> {', '.join(targets)}"


def check_set(coders: CoderSet, data: DataSource, folder: pathlib.Path) -> None:
    """Refuse data of other layers than those of several coders.

    Raises:
        DataError: with both shapes, or the names of layers.
    """
    check_shape(coders.shape, data, folder)
    if data.layer_names != coders.names:
        raise DataError(
            f"the data has the layers {', '.join(data.layer_names)}, and the coders are of "
            f"{', '.join(coders.names)}",
            where=str(folder),
            next="choose the layers that the coders were trained on (coder.json: config.data)",
        )


def check_shape(shape: CoderShape, data: DataSource, folder: pathlib.Path | None = None) -> None:
    """Refuse data that a coder was not made for.

    Args:
        folder: where it is stored.

    Raises:
        DataError: with both shapes.
    """
    if shape_of(data) != shape:
        raise DataError(
            f"the data does not fit the coder: its vectors are {_widths(shape_of(data))}, and the coder's "
            f"{_widths(shape)}",
            where=None if folder is None else str(folder),
            allowed="vectors of the model, layer and site that the coder is for",
            next="choose them by --model, --layer and --site, or a file of such vectors by --data-path",
        )


def _widths(shape: CoderShape) -> str:
    sides = [
        str(width) if layers == 1 else f"{width} in each of {layers} layers"
        for width, layers in ((shape.d_in, shape.layers_in), (shape.d_out, shape.layers_out))
    ]
    return f"of width {' -> '.join(dict.fromkeys(sides))}"
