"""The largest entries of each row; the entries above a threshold. Shapes: C rows, F columns, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts.codes import SparseCodes
from qsae_core.kernels.dispatch import operation

GROUP = 16
"""Columns of a group in the two-stage search; of four among the maxima of these, which are searched alike."""


@operation
def top_k(scores_CF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``([C, k] values, int32 [C, k] columns)``: the k largest entries of each row, in any order.

    In two stages: the k largest entries of a row lie in the k groups of columns with the largest maxima, so
    only these are searched. Exact; among equal entries any may be taken.
    """
    values, columns = _by_groups(scores_CF, k, (GROUP, 4))
    return values, columns.to(torch.int32)


def _by_groups(scores_CF: Tensor, k: int, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    rows, width = scores_CF.shape
    if not sizes or width % sizes[0] or width // sizes[0] < 4 * k:
        return torch.topk(scores_CF, k, dim=1, sorted=False)
    size, groups = sizes[0], width // sizes[0]
    grouped = scores_CF.view(rows, size, groups)  # group g: columns g, g + groups, g + 2 groups, ...
    chosen = _by_groups(grouped.amax(1), k, sizes[1:])[1]
    members = grouped.gather(2, chosen[:, None, :].expand(-1, size, -1)).flatten(1)
    values, place = torch.topk(members, k, dim=1, sorted=False)
    columns = chosen.gather(1, place % k) + place.div(k, rounding_mode="floor") * groups
    return values, columns


def nonzero_codes(latents_CF: Tensor) -> SparseCodes:
    """Codes of all latents of a chunk that are not zero; without gradient."""
    if not latents_CF.numel() or latents_CF.min() < 0:
        return SparseCodes.from_dense(latents_CF)
    columns, values, offsets = compress(latents_CF.contiguous(), 0.0)
    return SparseCodes(columns, values, offsets, latents_CF.shape[1])


@operation
def compress(scores_CF: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Entries above a threshold, by rows: int32 ``[N]`` columns, ``[N]`` values, int64 ``[C + 1]`` offsets.

    Columns ascend within a row.
    """
    rows, width = scores_CF.shape
    places = (scores_CF > threshold).view(-1).nonzero().squeeze(1)
    ends = torch.arange(0, (rows + 1) * width, max(width, 1), device=scores_CF.device)[: rows + 1]
    offsets = torch.searchsorted(places, ends)
    columns = places.to(torch.int32).remainder_(max(width, 1)) if rows * width < 2**31 else places % width
    return columns.to(torch.int32), scores_CF.view(-1).take(places), offsets
