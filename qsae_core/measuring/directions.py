"""The directions of a coder's atoms, and as many random ones.

Shapes: F latents, L layers, d width of a layer, D = L d.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.quantized_matrix import gathered
from qsae_core.contracts.coder import SparseCoder

STREAM = 2**31
"""Added to the seed (of which a generator takes 32 bits), so that random rows are not those with which a
coder of the same seed began."""

ROWS_AT_ONCE = 512
"""Whose norms and quotients are float64 at one time."""


@torch.no_grad()
def directions(coder: SparseCoder) -> Tensor:
    """float32 ``[F, D]``: decoder rows as they are served, made unit; rows of zeros stay zero."""
    if not isinstance(coder, MatrixCoder) or not coder.has_own_rows:
        return unit_rows(equal_layers(coder, coder.atoms()))
    latents_F = torch.arange(coder.n_latents, device=coder.device)
    parts = (coder.atoms_of(some) for some in latents_F.split(ROWS_AT_ONCE))
    return gathered((unit_rows(equal_layers(coder, atoms)) for atoms in parts), coder.n_latents)


def equal_layers(coder: SparseCoder, vectors: Tensor) -> Tensor:
    """``[N, d]`` as it is; ``[N, L, d]`` as one long vector of all layers, in which each layer's part is
    divided by the scale of that layer's data where the coder normalises them one by one."""
    if vectors.dim() == 3 and isinstance(coder, MatrixCoder):
        vectors = vectors / coder.norm_out.scale
    return vectors.flatten(1)


def unit_rows(rows_FD: Tensor) -> Tensor:
    """float32 ``[F, D]``; rows of zeros stay zero."""
    found_FD = torch.empty_like(rows_FD, dtype=torch.float32)
    for rows, found in zip(rows_FD.split(ROWS_AT_ONCE), found_FD.split(ROWS_AT_ONCE), strict=True):
        norms_R1 = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
        found.copy_(rows / norms_R1.where(norms_R1 > 0, 1.0))
    return found_FD


def random_directions(like_FD: Tensor, seed: int) -> Tensor:
    """float32: as many random unit rows of the same width, on the same device."""
    generator = torch.Generator().manual_seed(STREAM + seed)
    return unit_rows(torch.randn(like_FD.shape, generator=generator)).to(like_FD.device)
