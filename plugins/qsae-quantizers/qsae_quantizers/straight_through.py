"""The straight-through gradient. Shapes: F rows, D columns; R rows of blocks, which share one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qsae_quantizers.blocks import chunks, in_rows

if TYPE_CHECKING:
    from qsae_quantizers.grid_quantizer import GridQuantizer


class StraightThrough(torch.autograd.Function):
    """Forward: ``quantizer.quantize``. Backward: ``quantizer.pass_gradient``, or the gradient as it is."""

    @staticmethod
    def forward(ctx: Any, weight_FD: Tensor, quantizer: GridQuantizer) -> Tensor:
        """``w_hat`` in the weights' dtype."""
        quantized, scale_R = quantizer.quantize(weight_FD)
        ctx.quantizer = quantizer
        if not quantizer.passes_all:
            ctx.save_for_backward(weight_FD, scale_R)
        return quantized.to(weight_FD.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient of the weights."""
        (gradient_FD,) = gradients
        quantizer: GridQuantizer = ctx.quantizer
        if quantizer.passes_all:
            return gradient_FD, None
        weight_FD, scale_R = ctx.saved_tensors
        rows = in_rows(weight_FD.detach(), quantizer.config)
        gradient = in_rows(gradient_FD, quantizer.config)
        scale_R = scale_R.expand(rows.shape[0])
        passed = torch.empty_like(rows, memory_format=torch.contiguous_format)
        for start, stop, (scratch,) in chunks(rows, 1):
            some = slice(start, stop)
            quantizer.pass_gradient(passed[some], gradient[some], rows[some], scale_R[some], scratch)
        return passed.view(weight_FD.shape), None
