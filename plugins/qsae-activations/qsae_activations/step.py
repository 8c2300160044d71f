"""Activation ``step``. Shapes: B tokens, F latents, N gathered entries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qsae_core.parts import Activation


class Step(Activation):
    """``f = 1[s >= 1/2]`` with ``s = sigma(z)``: a bit, whose gradient is that of s (straight through:
    Bengio et al., 2013). Rules rank latents by z, since bits would tie."""

    straight_through = True
    has_gates = True

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """``[B, F]`` or ``[N]`` pre-activations -> 1 where z >= 0, else 0."""
        bits: Tensor = _Bit.apply(pre_acts)  # type: ignore[no-untyped-call]
        return bits

    def candidates(self, pre_BF: Tensor) -> Tensor:
        """Positive and ascending with z: ``z + 1`` above 0; below it ``exp(z)`` in training, else 0."""
        ranking = torch.nn.functional.elu(pre_BF) + 1
        return ranking if self.training else ranking * (pre_BF >= 0)

    def gates(self, pre_N: Tensor, latent_N: Tensor) -> Tensor:
        """The bits, with the gradient of s."""
        return self(pre_N, latent_N)


class _Bit(torch.autograd.Function):
    """``1[z >= 0]``; backward: the derivative of ``sigma(z)``."""

    @staticmethod
    def forward(ctx: Any, pre_acts: Tensor) -> Tensor:
        ctx.save_for_backward(pre_acts)
        return (pre_acts >= 0).to(pre_acts.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        s = torch.sigmoid(ctx.saved_tensors[0])
        return gradients[0] * s * (1 - s)
