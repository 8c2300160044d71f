"""A sparse matrix times a dense one. Shapes: B tokens, F latents, D width, N entries."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from qsae_core.kernels.dispatch import operation


@operation
def sparse_product(
    indices_N: Tensor, offsets_B1: Tensor, values_N: Tensor, right_FD: Tensor, out_BD: Tensor | None = None
) -> Tensor:
    """``[B, D]``: for each token, the sum of its values times the rows of ``right`` that its entries name.

    Summed in the order of the entries, each by one fused multiply-add from zero on.

    Args:
        out_BD: where the result may go; an implementation that cannot write there gives a new tensor.
    """
    return F.embedding_bag(
        indices_N.long(),
        right_FD,
        offsets_B1,
        mode="sum",
        per_sample_weights=values_N,
        include_last_offset=True,
    )
