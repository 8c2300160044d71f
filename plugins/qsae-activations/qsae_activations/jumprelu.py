"""Activation ``jumprelu``. Shapes: B tokens, F latents, N gathered entries."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qsae_activations import JumpReLUConfig
from qsae_core.contracts import Activation, Pointwise

LEAST_THETA = 0.0
"""Of latents that are never negative."""


class JumpReLU(Activation):
    """``f = z 1[z > theta]`` with a learned threshold per latent (Rajamanoharan et al., 2024).

    ``df/dz = 1[z > theta]``; the threshold learns from pre-activations within half a bandwidth of it:
    ``df/dtheta = -(theta / bw) 1[|z - theta| < bw / 2]``, and for the number of active latents
    ``dH/dtheta = -(1 / bw) 1[|z - theta| < bw / 2]``. The parameter is theta itself, in float32 (its
    logarithm would barely move under Adam); where it is used it is at least ``LEAST_THETA``, unless latents
    are ``signed``, and the gradient passes, so that a threshold can come back from there.
    """

    has_gates = True
    config: JumpReLUConfig

    def __init__(self, config: JumpReLUConfig, n_latents: int) -> None:
        super().__init__(config, n_latents)
        self.theta = nn.Parameter(torch.full((n_latents,), config.theta0, dtype=torch.float32))
        self.least = -math.inf if config.signed else LEAST_THETA

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """``[B, F]`` or ``[N]`` pre-activations -> latents of the same shape and dtype."""
        theta = self._theta(pre_acts, latent_index)
        jumped = _Jump.apply(pre_acts, theta, self.least, self.config.bandwidth)  # type: ignore[no-untyped-call]
        latents: Tensor = jumped
        return latents

    def candidates(self, pre_BF: Tensor) -> Tensor:
        """In training z from half a bandwidth below theta on; in evaluation ``forward``."""
        if not self.training:
            return super().candidates(pre_BF)
        lowest_F = self.theta.clamp_min(self.least).to(pre_BF.dtype) - self.config.bandwidth / 2
        return pre_BF * (pre_BF > lowest_F)

    def gates(self, pre_N: Tensor, latent_N: Tensor) -> Tensor:
        """``1[z > theta]``, with a gradient for theta and none for z."""
        theta = self._theta(pre_N, latent_N)
        jumped = _Gate.apply(pre_N, theta, self.least, self.config.bandwidth)  # type: ignore[no-untyped-call]
        gates: Tensor = jumped
        return gates

    def pointwise(self) -> Pointwise:
        """``jumprelu`` with the thresholds as they are used."""
        return Pointwise("jumprelu", self.theta.detach().clamp_min(self.least))

    @torch.no_grad()
    def take(self, point: Pointwise) -> None:
        """``theta <- threshold``."""
        super().take(point)
        assert point.threshold is not None
        self.theta.copy_(point.threshold)

    def _theta(self, pre_acts: Tensor, latent_index: Tensor | None) -> Tensor:
        theta = self.theta if latent_index is None else self.theta.index_select(0, latent_index)
        return theta.expand(pre_acts.shape)


def _near(pre_acts: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
    return (pre_acts - theta).abs() < bandwidth / 2


class _Jump(torch.autograd.Function):
    """``z 1[z > theta]``."""

    @staticmethod
    def forward(ctx: Any, pre_acts: Tensor, raw_theta: Tensor, least: float, bandwidth: float) -> Tensor:
        theta = raw_theta.clamp_min(least)
        ctx.save_for_backward(pre_acts, theta)
        ctx.bandwidth = bandwidth
        return pre_acts * (pre_acts > theta)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        pre_acts, theta = ctx.saved_tensors
        (grad,) = gradients
        to_theta = None
        if ctx.needs_input_grad[1]:
            to_theta = (-theta / ctx.bandwidth * _near(pre_acts, theta, ctx.bandwidth) * grad).to(theta.dtype)
        return grad * (pre_acts > theta), to_theta, None, None


class _Gate(torch.autograd.Function):
    """``1[z > theta]``."""

    @staticmethod
    def forward(ctx: Any, pre_acts: Tensor, raw_theta: Tensor, least: float, bandwidth: float) -> Tensor:
        theta = raw_theta.clamp_min(least)
        ctx.save_for_backward(pre_acts, theta)
        ctx.bandwidth = bandwidth
        return (pre_acts > theta).to(pre_acts.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None, None]:
        pre_acts, theta = ctx.saved_tensors
        near = _near(pre_acts, theta, ctx.bandwidth)
        return None, (-gradients[0] * near / ctx.bandwidth).to(theta.dtype), None, None
