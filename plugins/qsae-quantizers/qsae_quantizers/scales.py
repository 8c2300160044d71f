"""Scale rules: from a row's magnitudes to the scale of its grid. Shapes: R rows, C entries of a row.

Magnitudes are ``|w|`` divided by a power of two, so that a row's largest is about 1 and no sum over- or
underflows. ``scratch`` is a buffer of their shape; the rules that say so destroy the magnitudes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qsae_core.kernels import two_level_scale

LEAST_STEP = {1: 0.1, 2: 0.2, 3: 0.25, 4: 0.45, 5: 0.7, 6: 0.85, 7: 0.93, 8: 0.96}
"""n_bits -> the smallest step worth trying, as a share of the absmax step: heavy tails want it."""
FLOAT16_LOW_BITS = (1 << 13) - 1
"""Bits of a float32 significand that a float16 does not have."""


def uniform_scale(magnitudes_RC: Tensor, n_bits: int, scratch_RC: Tensor) -> Tensor:
    """``[R]``: the step of least squared error for points ``(q + 1/2) step`` on each side of zero.

    One and two bits exactly. Above, the best of nine steps: five of a geometric series around and below
    absmax, then the neighbourhood of the best; and finally the least-squares step ``<w, t> / <t, t>`` for
    the points t of the winner. Against a fine scan the squared error of Gaussian rows of 576 is 0.1% larger
    at 3 and 4 bits and 0.4% at 6; heavier tails lose less. A row that is already on a grid keeps its step.
    Destroys the magnitudes.
    """
    if n_bits == 1:
        return 2 * magnitudes_RC.mean(1)
    kept = step_on_grid(magnitudes_RC, n_bits)
    if n_bits == 2:
        found = two_level_scale(magnitudes_RC, 0.5, 1.5, scratch_RC)
    else:
        found = _StepSearch(magnitudes_RC, n_bits, scratch_RC).run()
    return torch.where(kept.isnan(), found, kept)


def integer_scale(rows_RC: Tensor, n_bits: int, scratch_RC: Tensor) -> Tensor:
    """``[R]``: the step of least squared error for points ``q step``, ``-2^(n_bits-1) <= q < 2^(n_bits-1)``.

    The best of nine steps (thirteen for one and two bits), refitted as in ``uniform_scale``. A row that is
    already on a grid keeps its step.

    Args:
        rows_RC: the rows with their signs.
    """
    kept = step_on_integers(rows_RC, n_bits)
    found = _IntegerSearch(rows_RC, n_bits, scratch_RC).run()
    return torch.where(kept.isnan(), found, kept)


class _StepSearch:
    """The best step so far of every row, for three bits and more."""

    at_least = 5

    def __init__(self, magnitudes_RC: Tensor, n_bits: int, scratch_RC: Tensor) -> None:
        self.magnitudes, self.scratch, self.n_bits = magnitudes_RC, scratch_RC, n_bits
        self.points = torch.empty_like(scratch_RC)
        self.score = magnitudes_RC.new_zeros(magnitudes_RC.shape[0])
        self.step = absmax_step(magnitudes_RC, n_bits)
        self.fitted = self.step

    def run(self) -> Tensor:
        """``[R]``: the least-squares step for the points of the best step tried."""
        width, least = self.magnitudes.shape[1], LEAST_STEP[self.n_bits]
        most = 1.12 + 2 / width
        n_steps = max(
            self.at_least, min(64, 512 // width)
        )  # short rows have many local optima, and cost little
        ratio = (most / least) ** (1 / (n_steps - 1))
        absmax = self.step
        for i in range(n_steps):
            self.consider(absmax * (most / ratio**i))
        for zoom in (ratio ** (1 / 3), ratio ** (1 / 9)):
            centre = self.step
            self.consider(centre * zoom)
            self.consider(centre / zoom)
        return self.fitted

    def consider(self, step_R: Tensor) -> None:
        """Take the step for the rows whose squared error it lowers."""
        divisor = torch.where(step_R > 0, step_R, 1.0)[:, None]
        t = self.rounded_(torch.div(self.magnitudes, divisor, out=self.points))
        along = torch.mul(self.magnitudes, t, out=self.scratch).sum(1)
        norm = torch.linalg.vector_norm(t, dim=1)
        better = along / norm > self.score
        self.score = torch.where(better, along / norm, self.score)
        self.step = torch.where(better, step_R, self.step)
        self.fitted = torch.where(better, along / norm.square(), self.fitted)

    def rounded_(self, in_steps_RC: Tensor) -> Tensor:
        """Magnitudes in units of the step, rounded to the grid in place."""
        return in_steps_RC.floor_().clamp_(max=2 ** (self.n_bits - 1) - 1).add_(0.5)


class _IntegerSearch(_StepSearch):
    """The same for rows with their signs and integers, of which one more is negative than positive."""

    def __init__(self, rows_RC: Tensor, n_bits: int, scratch_RC: Tensor) -> None:
        super().__init__(rows_RC, n_bits, scratch_RC)
        self.step = self.fitted = absmax_step(torch.abs(rows_RC, out=scratch_RC), n_bits)
        self.at_least = 9 if n_bits <= 2 else 5

    def rounded_(self, in_steps_RC: Tensor) -> Tensor:
        """Signed numbers of steps, rounded to integers in place."""
        half = 2 ** (self.n_bits - 1)
        return in_steps_RC.round_().clamp_(-half, half - 1)


def absmax_step(magnitudes_RC: Tensor, n_bits: int) -> Tensor:
    """``[R]``: the step at which the row's largest magnitude is the outermost point."""
    return magnitudes_RC.amax(1) / (2 ** (n_bits - 1) - 0.5)


def step_on_grid(magnitudes_RC: Tensor, n_bits: int) -> Tensor:
    """``[R]``: the float16 step of which every magnitude is an odd multiple of half; NaN where there is none.

    A search need not find again the step that made a row, and would then move a quantized row.
    """
    half = 2 ** (n_bits - 1)

    def fits(rows_RC: Tensor, step_R: Tensor) -> Tensor:
        level = (rows_RC / step_R[:, None]).floor_()
        return (level.add_(0.5).mul_(step_R[:, None]) == rows_RC).all(1)

    return _step_that_fits(magnitudes_RC, n_bits, [level + 0.5 for level in range(half - 1, -1, -1)], fits)


def step_on_integers(rows_RC: Tensor, n_bits: int) -> Tensor:
    """``[R]``: the float16 step of which every entry is a multiple from -2^(n_bits-1) to 2^(n_bits-1) - 1;
    NaN where there is none."""
    half = 2 ** (n_bits - 1)

    def fits(rows_RC: Tensor, step_R: Tensor) -> Tensor:
        level = (rows_RC / step_R[:, None]).round_()
        exact = (level * step_R[:, None] == rows_RC).all(1)
        return exact & (level.amax(1) < half) & (level.amin(1) >= -half)

    return _step_that_fits(rows_RC, n_bits, [float(level) for level in range(half, 0, -1)], fits)


def _step_that_fits(
    rows_RC: Tensor, n_bits: int, levels: Sequence[float], fits: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """``[R]``: the smallest float16 step with which ``fits`` holds, the largest magnitude at one of these
    levels (descending); NaN where there is none."""
    few = rows_RC[:, :16].contiguous()  # such rows are rare: look at a few entries first
    unused = (1 << (24 - 11 - n_bits)) - 1  # a point has 11 bits of the step and n_bits of its own
    rows = ((few.view(torch.int32) & unused) == 0).all(1).nonzero().squeeze(1)
    found = torch.full_like(rows_RC[:, 0], torch.nan)
    largest = rows_RC[rows].abs().amax(1) if rows.numel() else found[:0]
    for level in levels if rows.numel() else ():
        step = largest / level
        agrees = (step.view(torch.int32) & FLOAT16_LOW_BITS) == 0
        agrees &= fits(few[rows], step) & found[rows].isnan()
        some, its_step = rows[agrees], step[agrees]
        agrees = fits(rows_RC[some], its_step)
        found[some[agrees]] = its_step[agrees]
    return found


def absmean_ternary_scale(magnitudes_RC: Tensor) -> Tensor:
    """``[R]``: mean |w|, as in BitNet b1.58 (Ma et al., 2024).

    A row that is already ternary keeps its scale; the mean would shrink it each time.
    """
    largest = magnitudes_RC.amax(1)
    ternary = _is_ternary(magnitudes_RC[:, :16], largest)
    some = ternary.nonzero().squeeze(1)
    ternary[some] = _is_ternary(magnitudes_RC[some], largest[some])
    return torch.where(ternary, largest, magnitudes_RC.mean(1))


def _is_ternary(magnitudes_RC: Tensor, scale_R: Tensor) -> Tensor:
    return ((magnitudes_RC == 0) | (magnitudes_RC == scale_R[:, None])).all(1)


def twn_scale(magnitudes_RC: Tensor, scratch_RC: Tensor) -> tuple[Tensor, Tensor]:
    """``([R], [R])``: scale and threshold of ternary weight networks (Li and Liu, 2016).

    The threshold is 0.7 mean |w|; the scale is the mean of the magnitudes above it.
    """
    threshold = 0.7 * magnitudes_RC.mean(1)
    kept = torch.gt(magnitudes_RC, threshold[:, None], out=scratch_RC)
    n = kept.sum(1)
    return kept.mul_(magnitudes_RC).sum(1) / n.clamp_(min=1), threshold
