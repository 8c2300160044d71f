"""What the quantizers of this distribution do around their grids. Shapes: F rows, D columns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qsae_core.errors import ArtifactError


def straight_through(weight_FD: Tensor, quantized_FD: Tensor) -> Tensor:
    """The second matrix, whose gradient goes to the first as it is."""
    quantized: Tensor = _StraightThrough.apply(weight_FD, quantized_FD)  # type: ignore[no-untyped-call]
    return quantized


def finite(weight_FD: Tensor) -> Tensor:
    """float32, without gradient.

    Raises:
        ArtifactError: if a weight is NaN or infinite.
    """
    weight = weight_FD.detach().float()
    if not weight.isfinite().all():
        raise ArtifactError("a weight is NaN or infinite", next="train with a lower learning rate")
    return weight


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_FD: Tensor, quantized_FD: Tensor) -> Tensor:
        return quantized_FD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
