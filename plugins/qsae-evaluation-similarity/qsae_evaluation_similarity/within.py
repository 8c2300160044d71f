"""How alike the rows of one matrix are: each one's nearest, and all pairs. Shapes: F rows, D width."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.kernels import full_precision
from qsae_core.measuring import ROWS_AT_ONCE, Nearest, cosines

MARGIN = 1e-5
"""Float32 products this near to the threshold are decided in float64."""


class Within(NamedTuple):
    """Of the rows that are not zero."""

    rows: Tensor
    """int64 ``[A]``: which these are."""
    nearest: Nearest | None
    """``[A]``: the nearest other row of each, by its number among all; None where there is no other."""
    mean_abs: float | None
    """Mean of |cos| over pairs; None where there is none."""
    close_pairs: float | None
    """Share of pairs with a cosine above the threshold; None where there is none."""


@torch.no_grad()
def within(unit_FD: Tensor, threshold: float) -> Within:
    """All pairs of rows, ``ROWS_AT_ONCE`` of them against those that come after at a time; on the CPU.

    Args:
        unit_FD: float32, unit rows or zero rows.
    """
    rows = unit_FD.any(1).nonzero()[:, 0]
    n = len(rows)
    if n < 2:
        return Within(rows.cpu(), None, None, None)
    unit_AD, n_pairs = unit_FD[rows], n * (n - 1) / 2
    index, total, close = _all_pairs(unit_AD, threshold)
    exact = cosines(unit_AD, unit_AD, torch.arange(n, device=index.device), index)
    found = Nearest(rows[index].cpu(), exact.cpu())
    return Within(rows.cpu(), found, total / n_pairs, close / n_pairs)


@full_precision
def _all_pairs(unit_AD: Tensor, threshold: float) -> tuple[Tensor, float, int]:
    """int64 ``[A]``, the nearest other row; the sum of |cos| over pairs; how many are above the threshold."""
    best_A = torch.full((len(unit_AD),), -torch.inf, device=unit_AD.device)
    index_A = torch.zeros(len(unit_AD), dtype=torch.int64, device=unit_AD.device)
    total, close = 0.0, 0
    for start in range(0, len(unit_AD), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        block = unit_AD[rows] @ unit_AD[start:].T  # of each pair, and of this block's rows with each other
        own = block[:, : len(block)]
        seen = torch.ones_like(own, dtype=torch.bool).tril_()  # the diagonal, and each pair's second time
        twice = own.masked_fill(~seen, 0)
        total += _sum_of_sizes(block) - _sum_of_sizes(twice)
        own.masked_fill_(seen, -torch.inf)
        found, place = block.max(1)
        close += _above(block, found, threshold, unit_AD, start)
        better = found > best_A[rows]
        best_A[rows] = torch.where(better, found, best_A[rows])
        index_A[rows] = torch.where(better, place + start, index_A[rows])
        found = block.amax(0)  # without places, which cost ten times as much: few columns need them
        column = (found > best_A[start:]).nonzero()[:, 0]
        best_A[start + column] = found[column]
        index_A[start + column] = block.index_select(1, column).argmax(0) + start
    return index_A, total, close


def _sum_of_sizes(block: Tensor) -> float:
    """Sum of |entries|: of each row in float32, of rows in float64."""
    return float(torch.linalg.vector_norm(block, 1, dim=1).sum(dtype=torch.float64))


def _above(block: Tensor, largest: Tensor, threshold: float, unit_AD: Tensor, start: int) -> int:
    """How many of a block's entries are above the threshold; those next to it are computed in float64.

    Args:
        largest: of each row.
    """
    some = (largest > threshold - MARGIN).nonzero()[:, 0]
    block = block[some]
    row, column = (block > threshold - MARGIN).nonzero(as_tuple=True)
    sure = block[row, column] > threshold + MARGIN
    row, column = some[row[~sure]], column[~sure]
    near = cosines(unit_AD, unit_AD, row + start, column + start) > threshold
    return int(sure.sum()) + int(near.sum())
