"""The largest entries of each row; the entries above a threshold. Shapes: C rows, F columns, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.kernels.dispatch import operation

GROUP = 16
"""Columns of a group in the two-stage search."""


@operation
def top_k(scores_CF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``([C, k] values, int32 [C, k] columns)``: the k largest entries of each row, in any order.

    In two stages: the k largest entries of a row lie in the k groups of columns with the largest maxima, so
    only these are searched. Exact; among equal entries any may be taken.
    """
    rows, width = scores_CF.shape
    groups = width // GROUP
    if groups < 4 * k or width % GROUP:
        values, columns = torch.topk(scores_CF, k, dim=1, sorted=False)
        return values, columns.to(torch.int32)
    grouped = scores_CF.view(rows, GROUP, groups)  # group g: columns g, g + groups, g + 2 groups, ...
    chosen = torch.topk(grouped.amax(1), k, dim=1, sorted=False).indices
    members = grouped.gather(2, chosen[:, None, :].expand(-1, GROUP, -1)).flatten(1)
    values, place = torch.topk(members, k, dim=1, sorted=False)
    columns = chosen.gather(1, place % k) + place.div(k, rounding_mode="floor") * groups
    return values, columns.to(torch.int32)


@operation
def compress(scores_CF: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Entries above a threshold, by rows: int32 ``[N]`` columns, ``[N]`` values, int64 ``[C + 1]`` offsets.

    Columns ascend within a row.
    """
    above = scores_CF > threshold
    offsets = torch.zeros(scores_CF.shape[0] + 1, dtype=torch.int64, device=scores_CF.device)
    torch.cumsum(above.sum(1), 0, out=offsets[1:])
    columns = above.nonzero()[:, 1].to(torch.int32)
    return columns, scores_CF[above], offsets
