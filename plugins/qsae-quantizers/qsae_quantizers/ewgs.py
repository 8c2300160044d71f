"""Quantizer ``ewgs``: a gradient that knows the rounding error. Shapes: R rows of blocks, C entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_quantizers.configs import EwgsConfig
from qsae_quantizers.ste import Ste


class Ewgs(Ste):
    """``ste`` with element-wise gradient scaling (Lee et al., 2021).

    ``g_w = g_q (1 + delta sign(g_q) (w - q))`` with w and its point q in units of the distance between
    points: the farther a weight is from the border to which its gradient drives it, the faster it moves. The
    error counts as half a distance at most, also for weights beyond the outermost point of a ternary or
    binary grid. Beyond the reach of a uniform grid the gradient is zero, as in ``ste``.
    """

    config_class = EwgsConfig

    def __init__(self, config: EwgsConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape)
        self.delta = config.delta
        self.passes_all = False
        self.linear_gradient = config.delta == 0  # else by sign(g_q), which is not that of a part's gradient

    def pass_gradient(
        self, out_RC: Tensor, gradient_RC: Tensor, rows_RC: Tensor, scale_R: Tensor, scratch_RC: Tensor
    ) -> None:
        """``out``, filled with the scaled gradient."""
        super().pass_gradient(out_RC, gradient_RC, rows_RC, scale_R, scratch_RC)
        rows = rows_RC.float()
        points = self._grid.round_into(torch.empty_like(rows), rows, scale_R, None, torch.empty_like(rows))
        divisor = scale_R.where(scale_R != 0, torch.inf)[:, None]
        error = (rows / divisor).sub_(points).div_(self._grid.points[1] - self._grid.points[0])
        error.clamp_(-0.5, 0.5).mul_(gradient_RC.sign()).mul_(self.delta).add_(1.0)
        out_RC.mul_(error)
