"""The entries of sparse codes in the order of their latents. Shapes: F latents, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.kernels.dispatch import operation


@operation
def transpose_codes(indices_N: Tensor, offsets_B1: Tensor, n_latents: int) -> tuple[Tensor, Tensor, Tensor]:
    """The transposed sparse matrix, as (tokens, order, offsets).

    Returns:
        int32 ``[N]`` tokens, ascending within a latent; int64 ``[N]``, the place of each among the entries as
        they were; int64 ``[F + 1]``, where the tokens of each latent begin.
    """
    device = indices_N.device
    order = torch.sort(indices_N, stable=True).indices
    tokens = torch.repeat_interleave(
        torch.arange(offsets_B1.numel() - 1, device=device, dtype=torch.int32),
        offsets_B1.diff(),
        output_size=indices_N.numel(),
    )
    offsets = torch.zeros(n_latents + 1, dtype=torch.int64, device=device)
    torch.cumsum(torch.bincount(indices_N, minlength=n_latents), 0, out=offsets[1:])
    return tokens[order], order, offsets
