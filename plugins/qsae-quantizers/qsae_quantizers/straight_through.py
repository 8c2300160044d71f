"""The straight-through gradient. Shapes: F rows, D columns, R blocks that share one scale."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Rounding(Protocol):
    """What the gradient needs to know of a quantizer."""

    passes_all: bool
    """Whether the gradient passes as it is."""

    def quantize(self, weight_FD: Tensor) -> tuple[Tensor, Tensor]:
        """The quantized weights, and the scale of each block ``[R]``."""

    def gradient(self, gradient_FD: Tensor, weight_FD: Tensor, scale_R: Tensor) -> Tensor:
        """The gradient of the weights, from that of the quantized ones."""


class StraightThrough(torch.autograd.Function):
    """Forward: ``quantizer.quantize``. Backward: ``quantizer.gradient``, or the gradient as it is."""

    @staticmethod
    def forward(ctx: Any, weight_FD: Tensor, quantizer: Rounding) -> Tensor:
        """``w_hat`` in the weights' dtype."""
        quantized, scale_R = quantizer.quantize(weight_FD)
        ctx.quantizer = quantizer
        if not quantizer.passes_all:
            ctx.save_for_backward(weight_FD, scale_R)
        return quantized.to(weight_FD.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient of the weights."""
        quantizer: Rounding = ctx.quantizer
        if quantizer.passes_all:
            return gradients[0], None
        weight_FD, scale_R = ctx.saved_tensors
        return quantizer.gradient(gradients[0], weight_FD.detach(), scale_R), None
