"""The directions of a coder's atoms, of another coder's, and of as many random ones.

Shapes: F latents, L layers, d width of a layer, D = L d.
"""

from __future__ import annotations

import pathlib

import torch
from torch import Tensor

from qsae_core import load, load_set
from qsae_core.coders import MatrixCoder
from qsae_core.contracts import SparseCoder
from qsae_core.errors import ConfigError
from qsae_core.runs import set_folder


@torch.no_grad()
def directions(coder: SparseCoder) -> Tensor:
    """float32 ``[F, D]``: decoder rows as they are served, made unit; rows of zeros stay zero."""
    return unit_rows(equal_layers(coder, coder.atoms()))


def equal_layers(coder: SparseCoder, vectors: Tensor) -> Tensor:
    """``[N, d]`` as it is; ``[N, L, d]`` as one long vector of all layers, in which each layer's part is
    divided by the scale of that layer's data where the coder normalises them one by one."""
    if vectors.dim() == 3 and isinstance(coder, MatrixCoder):
        vectors = vectors / coder.norm_out.scale
    return vectors.flatten(1)


def unit_rows(rows_FD: Tensor) -> Tensor:
    """float32 ``[F, D]``; rows of zeros stay zero."""
    norms_F1 = torch.linalg.vector_norm(rows_FD, dim=1, keepdim=True, dtype=torch.float64)
    return (rows_FD / norms_F1.where(norms_F1 > 0, 1.0)).float()


def random_directions(like_FD: Tensor, seed: int) -> Tensor:
    """float32: as many random unit rows of the same width, on the same device."""
    generator = torch.Generator().manual_seed(seed)
    return unit_rows(torch.randn(like_FD.shape, generator=generator)).to(like_FD.device)


def load_other(path: str, coder: SparseCoder, layer: str, where: str) -> SparseCoder:
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
