"""Between a chunk of compressed rows and a dense chunk. Shapes: C rows of a chunk, F latents, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.kernels.dispatch import operation


@operation
def expand_rows(indices_N: Tensor, offsets_C1: Tensor, values_N: Tensor, out_CF: Tensor) -> Tensor:
    """``out``, filled with the values at their places and zeros elsewhere."""
    flat = out_CF.zero_().view(-1)
    flat.index_copy_(0, _places(indices_N, offsets_C1, out_CF.shape[1]), values_N)
    return out_CF


@operation
def collect_rows(dense_CF: Tensor, indices_N: Tensor, offsets_C1: Tensor) -> Tensor:
    """``[N]``: the entries of a dense chunk at the places that compressed rows name."""
    return dense_CF.view(-1).take(_places(indices_N, offsets_C1, dense_CF.shape[1]))


def _places(indices_N: Tensor, offsets_C1: Tensor, width: int) -> Tensor:
    """int64 ``[N]``: where each entry lies in the flattened dense chunk."""
    starts = torch.arange(0, (offsets_C1.numel() - 1) * width, width, device=indices_N.device)
    return torch.repeat_interleave(starts, offsets_C1.diff(), output_size=indices_N.numel()).add_(indices_N)
