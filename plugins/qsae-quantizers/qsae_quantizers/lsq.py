"""Quantizer ``lsq``: scales that are learned. Shapes: F rows, D columns; R blocks with C entries."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qsae_quantizers.blocks import chunks, in_blocks, shaped
from qsae_quantizers.configs import LsqConfig
from qsae_quantizers.grid_quantizer import GridQuantizer, Scales
from qsae_quantizers.grids import Uniform


class Lsq(GridQuantizer):
    """Learned step size quantization (Esser et al., 2020), on the mid-rise grid of ``ste``.

    ``w_hat = s q`` with q the nearest of ``{i + 1/2}``, at most ``Qp = 2^(n-1) - 1/2`` in size (the paper's
    grid has a zero and lacks symmetry, which costs most where there are few points).
    ``dw_hat/ds = q - w/s`` inside, ``-Qp`` or ``Qp`` beyond; its sum over the weights that share s times
    ``1 / sqrt(C Qp)``. The weights' gradient goes straight through, and is zero beyond the grid.

    What is trained is ``scale = s sqrt(Qp) / 2``, which at the paper's start is mean |w|: the factors of the
    paper make s move by the same share of itself as weights do, and Adam, whose steps do not depend on the
    size of a gradient, keeps that only for parameters of the size of weights. Its sign does not matter, so
    scales are never negative. They are used as they are stored, in float16; a row that is zero at the start
    has scale 0 and leaves it with the first gradient.
    """

    config_class = LsqConfig

    def __init__(self, config: LsqConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape, Uniform(config.n_bits))
        self.init = config.init
        self.by_row = False  # rows alone do not say which scales are theirs
        self.q_max = self._grid.points[-1]
        self.unit = 2 / math.sqrt(self.q_max)
        n_blocks, size = in_blocks(torch.empty(shape, device="meta"), config).shape
        self.gradient_scale = 1 / math.sqrt(size * self.q_max)
        typical = math.sqrt(2 / (math.pi * shape[1]))  # mean |w| of a Gaussian row of norm 1
        scale = torch.full((n_blocks,), typical, dtype=torch.float32)
        self.scale = nn.Parameter(shaped(scale, config, shape[1]))

    @torch.no_grad()
    def initialize(self, weight_FD: Tensor) -> None:
        """The scales of least squared error, or the paper's ``2 mean|w| / sqrt(Qp)``."""
        weight = weight_FD.detach().float()
        if self.init == "lsq":
            start = in_blocks(weight, self.config).abs().mean(1)
        else:
            start = super().scales(weight).values_R / self.unit
        self.scale.copy_(start.view_as(self.scale))

    def scales(self, weight_FD: Tensor) -> Scales:
        """The learned scales as they are stored, whatever the weights."""
        return self.stored_scales(self.scale.detach().float().abs().mul_(self.unit).flatten())

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """``[F, D]`` -> ``[F, D]`` on the grid of the learned scales."""
        quantized: Tensor = _LearnedScale.apply(weight_FD, self.scale, self)  # type: ignore[no-untyped-call]
        return quantized

    def gradients(self, gradient_FD: Tensor, weight_FD: Tensor, scale_R: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the weights ``[F, D]`` and of the scales ``[R]``, from that of w_hat."""
        rows = in_blocks(weight_FD.float(), self.config)
        gradient = in_blocks(gradient_FD.float(), self.config)
        passed, of_scale = torch.empty_like(rows, memory_format=torch.contiguous_format), []
        for start, stop, (in_steps, points) in chunks(rows, 2):
            some = slice(start, stop)
            torch.div(rows[some], scale_R[some, None], out=in_steps)
            in_steps.nan_to_num_(0.0, torch.inf, -torch.inf)  # 0 / 0
            inside = in_steps.abs() <= self.q_max + 0.5
            torch.floor(in_steps, out=points).add_(0.5).clamp_(-self.q_max, self.q_max)
            slope = torch.where(inside, points - in_steps, points)
            of_scale.append(torch.linalg.vecdot(gradient[some], slope))
            torch.mul(gradient[some], inside, out=passed[some])
        return passed.view(weight_FD.shape), torch.cat(of_scale)


class _LearnedScale(torch.autograd.Function):
    """Forward: ``quantizer.quantize``. Backward: ``quantizer.gradients``, in units of the parameter."""

    @staticmethod
    def forward(ctx: Any, weight_FD: Tensor, scale: Tensor, quantizer: Lsq) -> Tensor:
        quantized, scale_R = quantizer.quantize(weight_FD)
        ctx.quantizer = quantizer
        ctx.save_for_backward(weight_FD, scale, scale_R)
        return quantized.to(weight_FD.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weight_FD, scale, scale_R = ctx.saved_tensors
        quantizer: Lsq = ctx.quantizer
        passed, of_scale = quantizer.gradients(gradients[0], weight_FD.detach(), scale_R)
        slope = torch.where(scale < 0, -quantizer.unit, quantizer.unit) * quantizer.gradient_scale
        return passed.to(weight_FD.dtype), of_scale.view_as(scale) * slope, None
