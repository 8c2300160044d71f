"""Quantizer ``dorefa``: limited by tanh, then rounded. Shapes: F rows, D columns; R blocks of C entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_quantizers.blocks import chunks, in_blocks
from qsae_quantizers.configs import DorefaConfig
from qsae_quantizers.float16_scales import powers_of_two
from qsae_quantizers.grid_quantizer import GridQuantizer, Scales
from qsae_quantizers.grids import Uniform
from qsae_quantizers.scales import step_on_grid


class Dorefa(GridQuantizer):
    """``w_hat = s (2 quant_n(t / 2 + 1/2) - 1)``, ``t = tanh(w/u) / max tanh(|w|/u)`` (Zhou et al., 2016).

    ``quant_n`` rounds [0, 1] to multiples of ``1 / (2^n - 1)``, so that points are those of the mid-rise grid
    with the outermost at -s and s. As published, s = u = 1 and the maximum is that of the whole matrix, of
    weights near 1. Rows of a dictionary have norm 1 and entries near ``1 / sqrt(D)``. So s is the scale of
    least squared error between w and w_hat, of each row, group or matrix, as in the paper's one-bit case
    (mean |w|), and u the root mean square of the same block (``unit: rms``), without which tanh would change
    nothing. What is quantized is then tanh of the weights, at a distance of 7% of the squared norm of a
    Gaussian row.

    A block that is on such a grid already is left as it is. Gradient: straight through the rounding, times
    ``s (1 - tanh(w/u)^2) / (u max tanh)``; s, u and the maximum count as constants.
    """

    config_class = DorefaConfig

    def __init__(self, config: DorefaConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape, Uniform(config.n_bits))
        self.n_bits, self.in_rms = config.n_bits, config.unit == "rms"
        self.outermost = self._grid.points[-1]
        self.passes_all = False

    def scales(self, weight_FD: Tensor) -> Scales:
        """The step of least squared error for the points that tanh leads to."""
        steps = []
        rows = in_blocks(weight_FD, self.config)
        for start, stop, (scratch,) in chunks(rows, 1):
            exponent, magnitudes = _normalized(rows[start:stop])
            limited = torch.tanh(self._arguments(rows[start:stop], exponent, magnitudes)).abs_()
            limited.div_(limited.amax(1, keepdim=True).clamp_min_(torch.finfo(limited.dtype).tiny))
            points = limited.mul_(self.outermost).floor_().clamp_(max=self.outermost - 0.5).add_(0.5)
            step = torch.mul(points, magnitudes, out=scratch).sum(1) / points.square().sum(1)
            kept = step_on_grid(magnitudes, self.n_bits)
            steps.append(torch.where(kept.isnan(), step, kept) * powers_of_two(exponent))
        return self.stored_scales(torch.cat(steps))

    def source(self, weight_FD: Tensor, scales: Scales) -> Tensor:
        """``[F, D]``: s t; the weights themselves in blocks that are on a grid."""
        rows, found = in_blocks(weight_FD, self.config), []
        for start, stop, _ in chunks(rows, 0):
            some = rows[start:stop]
            exponent, magnitudes = _normalized(some)
            limited = torch.tanh(self._arguments(some, exponent, magnitudes))
            limited.div_(limited.abs().amax(1, keepdim=True).clamp_min_(torch.finfo(limited.dtype).tiny))
            limited.mul_(scales.values_R[start:stop, None] * self.outermost)
            found.append(torch.where(step_on_grid(magnitudes, self.n_bits).isnan()[:, None], limited, some))
        return torch.cat(found).view(weight_FD.shape)

    def gradient(self, gradient_FD: Tensor, weight_FD: Tensor, scale_R: Tensor) -> Tensor:
        """``[F, D]``: the gradient of the weights from that of w_hat."""
        rows, gradient = in_blocks(weight_FD.float(), self.config), in_blocks(gradient_FD, self.config)
        passed = torch.empty_like(gradient, memory_format=torch.contiguous_format)
        for start, stop, _ in chunks(rows, 0):
            some = rows[start:stop]
            exponent, magnitudes = _normalized(some)
            arguments = self._arguments(some, exponent, magnitudes)
            limited = torch.tanh(arguments)
            unit = self._unit(exponent, magnitudes) * limited.abs().amax(1, keepdim=True)
            slope = scale_R[start:stop, None] * self.outermost / unit
            slope = slope.where(unit > 0, 1.0)
            torch.mul(gradient[start:stop], (1 - limited.square()) * slope, out=passed[start:stop])
        return passed.view(weight_FD.shape)

    def _unit(self, exponent_R: Tensor, magnitudes_RC: Tensor) -> Tensor:
        """``[R, 1]``: what tanh takes weights in units of."""
        if not self.in_rms:
            return torch.ones_like(magnitudes_RC[:, :1])
        return magnitudes_RC.square().mean(1, keepdim=True).sqrt() * powers_of_two(exponent_R)[:, None]

    def _arguments(self, rows_RC: Tensor, exponent_R: Tensor, magnitudes_RC: Tensor) -> Tensor:
        """``[R, C]``: w / u."""
        unit = self._unit(exponent_R, magnitudes_RC)
        return rows_RC / unit.where(unit > 0, 1.0)


def _normalized(rows_RC: Tensor) -> tuple[Tensor, Tensor]:
    """``(exponent, magnitudes)``: |w| divided by the power of two that makes the largest of a row about 1."""
    magnitudes = rows_RC.abs()
    _, exponent = torch.frexp(magnitudes.amax(1))
    exponent = exponent.clamp_(-126, 126)
    return exponent, magnitudes.mul_(powers_of_two(-exponent)[:, None])
