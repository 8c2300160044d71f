"""Another coder, to compare one with."""

from __future__ import annotations

import pathlib

from qsae_core.artifact.artifact import load
from qsae_core.artifact.coder_sets import load_set
from qsae_core.artifact.places import set_folder, stored_description, stored_folder
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.contracts.coder import SparseCoder
from qsae_core.contracts.data import DataSource
from qsae_core.contracts.provenance import LAYER, SOURCE
from qsae_core.errors import ConfigError
from qsae_core.evaluation.beside import twin_folder
from qsae_core.evaluation.fitting import of_other_sites


def load_other(path: str, coder: SparseCoder, layer: str, where: str) -> MatrixCoder:
    """The coder at a path, on the device of another one whose atoms it is compared with; of a run with a
    coder for each layer that of the same layer.

    Args:
        layer: of the data that the other one reads.
        where: the option that gives the path, for messages.

    Raises:
        ArtifactError: if there is no sound coder.
        ConfigError: if its atoms have another width, or there is none of that layer.
    """
    device, folder = str(coder.device), pathlib.Path(path)
    several = set_folder(folder) is not None
    other = load_set(folder, device=device)[layer] if several else load(folder, device=device)
    own, its = ((c.shape.layers_out, c.shape.d_out) for c in (coder, other))
    if (own, coder.chooses_layer) != (its, other.chooses_layer):
        raise ConfigError(
            f"the coder at {path} writes {its[0]} layers of width {its[1]}, this one {own[0]} of {own[1]}",
            where=where,
            allowed="a coder of vectors of the same place",
            next="qsae runs lists what was trained, with its layer",
        )
    return other


def load_other_float(path: str, coder: SparseCoder, data: DataSource, where: str) -> MatrixCoder:
    """``load_other`` of the full-precision coder that a path means: the float twin beside a quantized one,
    else the coder itself.

    Args:
        data: that the other one reads. Saved vectors may be of any layer of a language model.

    Raises:
        ConfigError: also if it is of another layer, or quantized without a float twin beside it.
    """
    folder = stored_folder(pathlib.Path(path))
    other = load_other(str(twin_folder(folder) or folder), coder, data.layer, where)
    description = stored_description(folder)
    source = description["source"]
    its = source.get(LAYER)
    is_other = of_other_sites(data, description) if source.get(SOURCE) else its not in (None, data.layer)
    if set_folder(folder) is None and is_other:
        raise ConfigError(
            f"the coder at {path} is of layer {its}, and this one of layer {data.layer}",
            where=where,
            allowed="a coder of vectors of the same place",
            next="qsae runs lists what was trained, with its layer",
        )
    if other.is_quantized:
        raise ConfigError(
            f"the coder at {path} is quantized, and no full-precision twin is beside it",
            where=where,
            allowed="a run without quantizers, or one with a float twin",
            next="qsae evaluate RUN --baseline other-seed trains one, in RUN/baselines/other-seed",
        )
    return other
