"""Uniform grids and the scales of rows. Shapes: R rows, D columns, C candidate scales."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.errors import ArtifactError
from qsae_core.reading import all_finite

FIRST_LOOK = 16
"""Columns that are enough to see that a row is not on the grid yet."""
CANDIDATES, REFITS = 16, 3
AT_ONCE = 4096
"""Rows whose floats are in memory beside the matrix at one time."""
CHUNK = 2**20
"""Entries of rows at candidate scales that are held at once."""


class Uniform(NamedTuple):
    """Evenly spaced points around zero: ±1/2, ±3/2, ... below 5 bits and with ``halves``, else 0, ±1, ..."""

    n_bits: int
    halves: bool = False

    @property
    def top(self) -> float:
        """The largest point."""
        return 2 ** (self.n_bits - 1) - (0.5 if self._without_zero else 1)

    @property
    def _without_zero(self) -> bool:
        return self.halves or self.n_bits < 5

    def points(self) -> Tensor:
        """float32 ``[P]``, ascending."""
        return torch.arange(int(2 * self.top) + 1, dtype=torch.float32) - self.top

    def round(self, weight_RD: Tensor, scale_R: Tensor) -> Tensor:
        """The nearest points; those of a scale of zero are the lowest magnitude there is."""
        steps = weight_RD / torch.where(scale_R == 0, 1, scale_R)[:, None]
        points = (steps - 0.5).round_().add_(0.5) if self._without_zero else steps.round_()
        return points.clamp_(-self.top, self.top)

    def scales(self, weight_RD: Tensor) -> Tensor:
        """float32 ``[R]``, each a bfloat16: that of a row which is on the grid, else the best one.

        Points have 8 bits and scales as many, so that every product is exact in float32.
        """
        scale_R, found_R = self._present(weight_RD)
        if not found_R.all():
            scale_R[~found_R] = self.best(weight_RD[~found_R])
        return scale_R

    def _present(self, weight_RD: Tensor) -> tuple[Tensor, Tensor]:
        """The scales of rows that are a scale times points already, and which rows these are."""
        largest_R = weight_RD.abs().amax(1)
        scale_R, found_R = torch.zeros_like(largest_R), largest_R == 0
        point = self.points()[self.points() > 0]
        for magnitude in point.flip(0).tolist():
            candidate_R = rounded(largest_R / magnitude)
            open_R = (~found_R & (candidate_R * magnitude == largest_R)).nonzero().squeeze(1)
            for columns in (FIRST_LOOK, weight_RD.shape[1]):
                some, scale = weight_RD[open_R, :columns], candidate_R[open_R]
                open_R = open_R[(self.round(some, scale) * scale[:, None] == some).all(1)]
            scale_R[open_R], found_R[open_R] = candidate_R[open_R], True
        return scale_R, found_R

    def best(self, weight_RD: Tensor) -> Tensor:
        """The scales of least squared error, as ``scales`` gives them to rows that are not on the grid."""
        some = max(1, CHUNK // (CANDIDATES * weight_RD.shape[1]))
        scale_R = torch.empty_like(weight_RD[:, 0], memory_format=torch.contiguous_format)
        for rows, out in zip(weight_RD.split(some), scale_R.split(some), strict=True):
            out.copy_(self._best(rows))
        return scale_R

    def _best(self, weight_RD: Tensor) -> Tensor:
        """The best of C candidates, refitted to ``<w, q> / <q, q>``."""
        # in units of the row's largest entry: squares of tiny and of huge weights stay in range
        unit_R = weight_RD.abs().amax(1)
        rows = weight_RD / torch.where(unit_R == 0, 1, unit_R)[:, None]
        shares_C = torch.linspace(0.2, 1, CANDIDATES, dtype=torch.float32, device=rows.device) / self.top
        trial_RC = self._stored(shares_C * unit_R[:, None], unit_R[:, None])
        repeated = rows.repeat_interleave(CANDIDATES, 0)
        error_RC = self._error(repeated, trial_RC.flatten()).view_as(trial_RC)
        error_R, at_R = error_RC.min(1)
        best_R = trial_RC.gather(1, at_R[:, None]).squeeze(1)
        for _ in range(REFITS):
            q = self.round(rows, best_R)
            slope_R = (rows * q).sum(1) / q.square().sum(1).clamp_min(0.25)
            scale_R = self._stored(slope_R * unit_R, unit_R)
            now_R = self._error(rows, scale_R)
            better = now_R < error_R
            best_R, error_R = torch.where(better, scale_R, best_R), torch.where(better, now_R, error_R)
        return rounded(best_R * unit_R)

    def _error(self, rows_RD: Tensor, scale_R: Tensor) -> Tensor:
        return (rows_RD - self.round(rows_RD, scale_R) * scale_R[:, None]).square_().sum(1)

    def _stored(self, scale: Tensor, unit: Tensor) -> Tensor:
        """Scales as they are stored, in units of the row's largest entry."""
        return rounded(scale) / torch.where(unit == 0, 1, unit)


def rounded(scale_R: Tensor) -> Tensor:
    """float32 scales as they are stored."""
    return scale_R.bfloat16().float()


def finite(weight_FD: Tensor) -> Tensor:
    """float32, without gradient.

    Raises:
        ArtifactError: if a weight is NaN or infinite.
    """
    weight = weight_FD.detach().float()
    if not all(all_finite(rows) for rows in weight.split(AT_ONCE)):
        raise ArtifactError("a weight is NaN or infinite", next="train with a lower learning rate")
    return weight
