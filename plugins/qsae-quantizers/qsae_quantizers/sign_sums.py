"""Rows as sums of sign vectors, ``sum_i s_i b_i``: which scales, and to find them again exactly.

Shapes: R rows, C entries of a row, n terms. Scales are ``[n, R]``, descending; signs follow from them: term
by term the sign of what is left. Rows come divided by a power of two, so that their largest entry is about 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_quantizers.blocks import chunks
from qsae_quantizers.float16_scales import powers_of_two
from qsae_quantizers.scales import step_on_grid, uniform_scale

ROUNDS = 3
"""Least-squares refits of ordinary rows."""
MOST_ROUNDS = 40
"""The same of rows that look like sums of signs already, until the sum is found."""
FINEST = 12
"""Scales are multiples of 2^-12 of the power of two below the largest: no sum of them is ever rounded."""
GAUSSIAN_STEP = (1.596, 0.996, 0.586, 0.335, 0.188, 0.1041, 0.0569, 0.0308)
"""Of 1, 2, ... bits: the step of least squared error for Gaussian rows of root mean square 1 (Max, 1960)."""
RIDGE = 1e-7
"""Pull towards the scales so far, where signs leave them open."""


def sign_sums(rows_RC: Tensor, scales_nR: Tensor) -> Tensor:
    """float32 ``[R, C]``: the sum that stands for each entry; exact, whatever the order of its terms."""
    sums = torch.zeros_like(rows_RC, memory_format=torch.contiguous_format)
    for start, stop, (left,) in chunks(rows_RC, 1):
        left.copy_(rows_RC[start:stop])
        for scale in scales_nR[:, start:stop, None]:
            term = torch.where(left >= 0, scale, -scale)
            left.sub_(term)
            sums[start:stop].add_(term)
    return sums


def signs_of(rows_RC: Tensor, scales_nR: Tensor) -> Tensor:
    """bool ``[n, R, C]``: True for +1; all +1 in rows whose scales are zero."""
    signs, left = [], rows_RC.clone()
    for scale in scales_nR[:, :, None]:
        signs.append((left >= 0) | (scale == 0))
        left.sub_(torch.where(signs[-1], scale, -scale))
    return torch.stack(signs)


def best_scales(rows_RC: Tensor, n: int, shared: bool) -> Tensor:
    """``[n, R]``, or ``[n, 1]`` if shared: evenly spaced, then refitted together a few times.

    A start with greedy scales (each the mean magnitude of what the terms before leave) is stuck at .0185 of a
    Gaussian row's squared norm at four terms, where evenly spaced ones leave .0112. Rows that are such sums,
    as far as it can be seen, keep their scales.

    Args:
        shared: whether all rows have one set of scales.
    """
    scales = _start(rows_RC, n, shared)
    for _ in range(ROUNDS):
        scales = _refitted(rows_RC, scales, shared)
    scales = _exact(scales)
    found = known_scales(rows_RC, n, shared)
    return torch.where(found.isnan(), scales, found)


def known_scales(rows_RC: Tensor, n: int, shared: bool) -> Tensor:
    """``[n, R]``, or ``[n, 1]`` if shared: scales with which the rows are exactly such sums; NaN where none
    are found."""
    blocks = rows_RC.reshape(1, -1) if shared else rows_RC
    found = rows_RC.new_full((n, blocks.shape[0]), torch.nan)
    few = blocks[:, :16].contiguous()  # such sums have at most 19 bits
    rows = ((few.view(torch.int32) & 0x1F) == 0).all(1).nonzero().squeeze(1)
    if not rows.numel():
        return found
    found[:, rows] = evenly_spaced(step_on_grid(blocks[rows].abs(), n), n)
    rows = rows[found[0, rows].isnan()]
    some = rows_RC if shared else rows_RC[rows]
    scales = _start(some, n, shared) if rows.numel() else found[:, :0]
    for _ in range(MOST_ROUNDS if rows.numel() else 0):
        scales = _refitted(some, scales, shared)
        exact = _exact(scales)
        same = sign_sums(some, exact.expand(n, some.shape[0])) == some
        done = same.all()[None] if shared else same.all(1)
        found[:, rows[done]] = exact[:, done]
        rows, scales = rows[~done], scales[:, ~done]
        if not rows.numel():
            break
        some = some if shared else some[~done]
    return found


def evenly_spaced(step_R: Tensor, n: int) -> Tensor:
    """``[n, R]``: the scales whose sums are the mid-rise grid of n bits with this step."""
    return torch.stack([step_R * 2.0 ** (n - 2 - i) for i in range(n)])


def spare_scales(rows_RC: Tensor, n: int, shared: bool) -> Tensor:
    """``[n, R]``, or ``[n, 1]`` if shared: those of the mid-rise grid, which are always found again."""
    blocks = (rows_RC.reshape(1, -1) if shared else rows_RC).abs()
    step = uniform_scale(blocks, n, torch.empty_like(blocks))
    return evenly_spaced(step.half().float(), n)


def _start(rows_RC: Tensor, n: int, shared: bool) -> Tensor:
    """The evenly spaced scales that suit Gaussian rows."""
    squares = rows_RC.square().mean(1)
    squares = squares.double().mean()[None].float() if shared else squares
    return evenly_spaced(squares.sqrt() * GAUSSIAN_STEP[n - 1], n)


def _refitted(rows_RC: Tensor, scales_nR: Tensor, shared: bool) -> Tensor:
    """The scales of least squared error for the signs that these scales lead to, descending."""
    n, n_rows = scales_nR.shape[0], rows_RC.shape[0]
    gram = rows_RC.new_empty(n_rows, n, n, dtype=torch.float64)
    along = rows_RC.new_empty(n_rows, n, 1, dtype=torch.float64)
    everywhere = scales_nR.expand(n, n_rows)
    for start, stop, _ in chunks(rows_RC, 0):
        some = rows_RC[start:stop]
        signs = signs_of(some, everywhere[:, start:stop]).permute(1, 0, 2).to(some.dtype).mul_(2).sub_(1)
        gram[start:stop] = signs @ signs.transpose(1, 2)
        along[start:stop] = signs @ some[:, :, None]
    if shared:
        gram, along = gram.sum(0, keepdim=True), along.sum(0, keepdim=True)
    pull = RIDGE * gram[:, :1, :1]
    old = scales_nR.T[:, :, None].double()
    fitted = torch.linalg.solve(gram + pull * torch.eye(n, device=gram.device), along + pull * old)
    return fitted.squeeze(2).abs().sort(dim=1, descending=True).values.T.float()


def _exact(scales_nR: Tensor) -> Tensor:
    """Scales rounded to float16, and to multiples of 2^-12 of the power of two below the row's largest."""
    stored = scales_nR.half().float()
    _, exponent = torch.frexp(stored[0])
    finest = powers_of_two((exponent - 1).clamp(min=-100) - FINEST)
    return (stored / finest).round_().mul_(finest)
