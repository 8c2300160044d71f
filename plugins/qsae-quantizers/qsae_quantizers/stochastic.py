"""Quantizer ``stochastic``: rounding up or down at random in training. Shapes: F rows, D columns."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_quantizers.blocks import in_rows
from qsae_quantizers.configs import StochasticConfig
from qsae_quantizers.grid_quantizer import GridQuantizer
from qsae_quantizers.grids import Uniform


class Stochastic(GridQuantizer):
    """``w_hat = s (floor(w / s - 1/2 + u) + 1/2)``, u uniform in [0, 1), in training; else the nearest point.

    So ``E w_hat = w`` between the outermost points (Gupta et al., 2015). The noise comes from torch's global
    generator, once for each time that the matrix is quantized, which is why it is always quantized whole: a
    row has one value within a step. Straight-through gradient, zero where the uniform grid clips w.
    """

    config_class = StochasticConfig

    def __init__(self, config: StochasticConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape, Uniform(config.n_bits))
        self.scale_rule = config.scale
        self.by_row = False

    def quantize(self, weight_FD: Tensor) -> tuple[Tensor, Tensor]:
        """``(w_hat, scale)``: in training the point nearest to a weight moved by up to half a step."""
        if not self.training:
            return super().quantize(weight_FD)
        weight = weight_FD.detach().float()
        found = self.scales(weight)
        moved = torch.rand_like(weight, memory_format=torch.contiguous_format).sub_(0.5)
        rows = in_rows(moved, self.config)
        rows.mul_(found.values_R.expand(rows.shape[0])[:, None])
        return self.rounded(moved.add_(weight), found, times_scale=True), found.values_R
