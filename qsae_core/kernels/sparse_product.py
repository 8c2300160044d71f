"""A sparse matrix times a dense one. Shapes: B tokens, F latents, D width, N entries."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from qsae_core.kernels.dispatch import operation


@operation
def sparse_product(indices_N: Tensor, offsets_B1: Tensor, values_N: Tensor, right_FD: Tensor) -> Tensor:
    """``[B, D]``: for each token, the sum of its values times the rows of ``right`` that its entries name.

    Summed in the order of the entries, each by one fused multiply-add from zero on.
    """
    return F.embedding_bag(
        indices_N.long(),
        right_FD,
        offsets_B1,
        mode="sum",
        per_sample_weights=values_N,
        include_last_offset=True,
    )
