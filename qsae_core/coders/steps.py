"""The step of latents of one bit, with the gradient of the logistic function (Bengio et al., 2013)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def step(pre_acts: Tensor) -> Tensor:
    """``1[z >= 0]``, of the shape of z; its gradient is that of ``sigma(z)``."""
    bits: Tensor = _Step.apply(pre_acts)  # type: ignore[no-untyped-call]
    return bits


def step_candidates(pre_acts: Tensor, training: bool) -> Tensor:
    """What rules rank in place of bits, which would tie: positive, and ascending with z.

    ``z + 1`` above 0; below it ``exp(z)`` in training, where the bit may learn to be 1, else 0.
    """
    ranking = torch.nn.functional.elu(pre_acts) + 1
    return ranking if training else ranking * (pre_acts >= 0)


class _Step(torch.autograd.Function):
    """``1[z >= 0]``; backward: the derivative of ``sigma(z)``."""

    @staticmethod
    def forward(ctx: Any, pre_acts: Tensor) -> Tensor:
        ctx.save_for_backward(pre_acts)
        return (pre_acts >= 0).to(pre_acts.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (pre_acts,) = ctx.saved_tensors
        s = torch.sigmoid(pre_acts)
        return gradients[0] * s * (1 - s)
