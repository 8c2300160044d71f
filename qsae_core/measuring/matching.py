"""Which rows of two matrices are each other's partners, by cosine. The larger matrices are, the more of their
products are taken in blocks: nothing of N x M entries is ever held above ``exact_up_to`` rows.

Shapes: N rows of a, M rows of b, D width, P pairs.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from qsae_core.kernels.precision import full_precision

ROWS_AT_ONCE = 1024
"""Rows that are worked on at one time."""
PRODUCTS_AT_ONCE = 2**24
"""Of rows of a with all rows of b, that are in memory at one time."""
FEWEST = 8
"""A round of mutual pairs that finds fewer than one for so many rows that are left is the last one."""
How = Literal["exact", "mutual"]


class Matching(NamedTuple):
    """Pairs of rows, each row in one at most; as many as the smaller matrix has rows other than zero."""

    rows: Tensor
    """int64 ``[P]``, of a."""
    columns: Tensor
    """int64 ``[P]``: their partners in b."""
    cosines: Tensor
    """float64 ``[P]``, with their signs."""
    how: How
    """``exact``: no other pairs have a larger sum. ``mutual``: pairs that are each other's nearest, first."""


class Nearest(NamedTuple):
    """The row of another matrix that is nearest to each row."""

    which: Tensor
    """int64 ``[N]``."""
    cosines: Tensor
    """float64 ``[N]``, with their signs."""


@torch.no_grad()
def match(a_ND: Tensor, b_MD: Tensor, *, exact_up_to: int, absolute: bool = False) -> Matching:
    """The one-to-one matching of rows whose cosines have the largest sum (Hungarian method).

    Where either matrix has more than ``exact_up_to`` rows, pairs that are each other's nearest are taken
    first, round after round, until so few rows are left or a round finds few; the rest is matched exactly,
    ``exact_up_to`` rows at a time. The result is on the CPU.

    Args:
        a_ND, b_MD: float32, of unit rows, or zero rows, which are left out: they have no direction.
        absolute: by |cos| instead of cos.
    """
    rows, columns = (x.any(1).nonzero()[:, 0] for x in (a_ND, b_MD))
    exact = max(len(rows), len(columns)) <= exact_up_to
    found = [(rows[:0], columns[:0])]
    while not exact and min(len(rows), len(columns)) > exact_up_to:
        pairs = _mutual(a_ND[rows], b_MD[columns], absolute)
        few = len(pairs[0]) * FEWEST < min(len(rows), len(columns))
        found.append((rows[pairs[0]], columns[pairs[1]]))
        rows, columns = _without(rows, pairs[0]), _without(columns, pairs[1])
        if few:
            break
    found += _rest(a_ND, b_MD, rows, columns, exact_up_to, absolute)
    row_P, column_P = (torch.cat(side) for side in zip(*found, strict=True))
    cosines_P = cosines(a_ND, b_MD, row_P, column_P)
    return Matching(row_P.cpu(), column_P.cpu(), cosines_P.cpu(), "exact" if exact else "mutual")


@torch.no_grad()
def nearest(a_ND: Tensor, b_MD: Tensor, *, absolute: bool = False) -> tuple[Nearest, Nearest]:
    """The row of b nearest to each row of a, and the row of a nearest to each row of b; the first of equals.

    Products are float32, cosines of what they find float64; both on the CPU.
    """
    of_a, of_b = _nearest(a_ND, b_MD, absolute)
    everything_N, everything_M = (torch.arange(len(x), device=x.device) for x in (a_ND, b_MD))
    return (
        Nearest(of_a.cpu(), cosines(a_ND, b_MD, everything_N, of_a).cpu()),
        Nearest(of_b.cpu(), cosines(a_ND, b_MD, of_b, everything_M).cpu()),
    )


def cosines(a_ND: Tensor, b_MD: Tensor, rows_P: Tensor, columns_P: Tensor) -> Tensor:
    """float64 ``[P]``: of pairs of rows, computed in float64; 0 where one is zero."""
    found = [torch.empty(0, dtype=torch.float64, device=a_ND.device)]
    for row, column in zip(rows_P.split(ROWS_AT_ONCE), columns_P.split(ROWS_AT_ONCE), strict=True):
        a, b = a_ND[row].double(), b_MD[column].double()
        norms = (a.square().sum(1) * b.square().sum(1)).sqrt()
        found.append((a * b).sum(1) / norms.where(norms > 0, 1.0))
    return torch.cat(found)


def rows_at_once(n: int) -> int:
    """How many rows are multiplied with n others at one time: ``ROWS_AT_ONCE``, or as many as give 2^24
    products where that is less."""
    return max(1, min(ROWS_AT_ONCE, PRODUCTS_AT_ONCE // max(1, n)))


@full_precision
def _nearest(a_ND: Tensor, b_MD: Tensor, absolute: bool) -> tuple[Tensor, Tensor]:
    """int64 ``[N]`` and ``[M]``."""
    best_M = torch.full((len(b_MD),), -torch.inf, device=b_MD.device)
    of_b = torch.zeros(len(b_MD), dtype=torch.int64, device=b_MD.device)
    of_a = [of_b[:0]]
    at_once = rows_at_once(len(b_MD))
    for start in range(0, len(a_ND), at_once):
        block = a_ND[start : start + at_once] @ b_MD.T
        if absolute:
            block.abs_()
        of_a.append(block.max(1).indices)
        value_M, row_M = block.max(0)
        better = value_M > best_M
        best_M = torch.where(better, value_M, best_M)
        of_b = torch.where(better, row_M + start, of_b)
    return torch.cat(of_a), of_b


def _mutual(a_ND: Tensor, b_MD: Tensor, absolute: bool) -> tuple[Tensor, Tensor]:
    """Pairs of rows that are each other's nearest; at least one."""
    of_a, of_b = _nearest(a_ND, b_MD, absolute)
    everything_N = torch.arange(len(a_ND), device=a_ND.device)
    rows = everything_N[of_b[of_a] == everything_N]
    return rows, of_a[rows]


@full_precision
def _rest(
    a_ND: Tensor, b_MD: Tensor, rows: Tensor, columns: Tensor, at_once: int, absolute: bool
) -> list[tuple[Tensor, Tensor]]:
    """The matching of these rows, ``at_once`` of the smaller side at a time."""
    from scipy.optimize import linear_sum_assignment

    if len(rows) > len(columns):
        turned = _rest(b_MD, a_ND, columns, rows, at_once, absolute)
        return [(row, column) for column, row in turned]
    found = []
    for some in rows.split(at_once) if len(rows) else ():
        block = a_ND[some] @ b_MD[columns].T
        gain = (block.abs_() if absolute else block).cpu().numpy()
        pairs = linear_sum_assignment(gain, maximize=True)
        row, column = (torch.from_numpy(side).to(rows.device) for side in pairs)
        found.append((some[row], columns[column]))
        columns = _without(columns, column)
    return found


def _without(items: Tensor, places: Tensor) -> Tensor:
    stays = torch.ones(len(items), dtype=torch.bool, device=items.device)
    stays[places] = False
    return items[stays]
