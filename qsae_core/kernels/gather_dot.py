"""The dot product of each entry of sparse codes. Shapes: B tokens, F latents, D width, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.kernels.dispatch import operation

_MODE_SUM = 0


@operation
def gather_dot(left_BD: Tensor, right_FD: Tensor, indices_N: Tensor, offsets_B1: Tensor) -> Tensor:
    """``[N]``: for each entry (b, j), the dot product of ``left[b]`` and ``right[j]``.

    The result of an entry depends on its two rows alone, not on the batch around it.
    """
    if indices_N.numel() == 0:
        return left_BD.new_zeros(0)
    tokens = torch.arange(left_BD.shape[0], device=left_BD.device)
    rows = torch.repeat_interleave(tokens, offsets_B1.diff(), output_size=indices_N.numel())
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        left_BD.contiguous(), right_FD.contiguous(), indices_N.long(), offsets_B1[:-1], rows, _MODE_SUM
    )
