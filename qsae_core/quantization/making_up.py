"""Rows that make up for what matrices before theirs miss. Shapes: N tokens, F latents, D width."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts.codes import SparseCodes
from qsae_core.kernels.products import transposed_product, weighted_rows

DAMPING = 0.1
"""Share of the mean energy of a latent that is added to each latent's."""
STEPS = 20
"""Of conjugate gradients; what they leave is far below the noise of a few thousand tokens."""


@torch.no_grad()
def making_up(codes: SparseCodes, missed_ND: Tensor) -> Tensor:
    """float32 ``[F, D]``: the change of rows that least squares find for ``missed``, with a ridge:
    ``argmin ||missed - f X||^2 + a ||X||^2``.

    ``(f^T f + a) X = f^T missed`` is solved by conjugate gradients, each column for itself, preconditioned by
    the latents' energies; so ``f^T f``, which is as large as the square of the dictionary, need not exist.
    """
    energy_F = missed_ND.new_zeros(codes.n_latents)
    energy_F.index_add_(0, codes.indices.long(), codes.values.square())
    ridge = DAMPING * energy_F.mean()
    left_FD = transposed_product(codes, codes.values, missed_ND.contiguous())
    found_FD = torch.zeros_like(left_FD)
    if ridge == 0:  # none of them fired
        return found_FD
    scale_F1 = 1 / (energy_F + ridge)[:, None]
    step_FD = scale_F1 * left_FD
    size_D = (left_FD * step_FD).sum(0)
    for _ in range(STEPS):
        product_FD = transposed_product(codes, codes.values, weighted_rows(codes, codes.values, step_FD))
        product_FD.add_(step_FD * ridge)
        length_D = size_D / (step_FD * product_FD).sum(0).clamp_min(torch.finfo(torch.float32).tiny)
        found_FD.addcmul_(step_FD, length_D)
        left_FD.addcmul_(product_FD, length_D, value=-1)
        after_D = (left_FD * left_FD * scale_F1).sum(0)
        step_FD = scale_F1 * left_FD + step_FD * (after_D / size_D.clamp_min(torch.finfo(torch.float32).tiny))
        size_D = after_D
    return found_FD
