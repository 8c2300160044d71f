"""The squared error and its gradient. Shapes: B tokens, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def squared_error(target_BD: Tensor, reconstruction_BD: Tensor) -> Tensor:
    """``||target - reconstruction||^2``, summed over all dimensions but the first, mean over tokens.

    Differentiable in both; one difference is kept, and nothing else of their size is made.
    """
    return _SquaredError.apply(target_BD, reconstruction_BD)  # type: ignore[no-untyped-call]


class _SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, target: Tensor, reconstruction: Tensor) -> Tensor:
        difference = target - reconstruction
        ctx.save_for_backward(difference)
        flat = difference.flatten()
        return torch.dot(flat, flat) / max(1, target.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (difference,) = ctx.saved_tensors
        factor = gradients[0] * (2 / max(1, difference.shape[0]))
        to_target, to_reconstruction = ctx.needs_input_grad
        return (
            difference * factor if to_target else None,
            difference * -factor if to_reconstruction else None,
        )
