"""The sum over source layers. Shapes: B tokens, L layers, E width of a layer's output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def sum_of_layers(bias: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """``[B, L E]``: the bias, and what each source layer adds to its own output and all later ones.

    Args:
        bias: ``[L E]``.
        parts: of source layer l ``[B, (L - l) E]``: its outputs from layer l on.
    """
    total: Tensor = _SumOfLayers.apply(bias, *parts)  # type: ignore[no-untyped-call]
    return total


class _SumOfLayers(torch.autograd.Function):
    """Written out, since each sum into a part of a tensor would copy the whole gradient."""

    @staticmethod
    def forward(ctx: Any, bias: Tensor, *parts: Tensor) -> Tensor:
        ctx.widths = [part.shape[1] for part in parts]
        total = parts[0] + bias
        for part in parts[1:]:
            total[:, total.shape[1] - part.shape[1] :] += part
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = gradients
        to_bias = grad.sum(0) if ctx.needs_input_grad[0] else None
        return (to_bias, *(grad[:, grad.shape[1] - width :] for width in ctx.widths))
