"""RoutedCoder: one SAE for several layers, which chooses the layer of each token.

Shapes: B tokens, L layers, D width, F latents.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from qsae_core.coder_options import CoderConfig, RoutedConfig
from qsae_core.coders.linear import LinearCoder
from qsae_core.contracts.coder import CoderShape, LossOutput, Parts
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch
from qsae_core.kernels import Matrix, processes

SMALLEST = 1e-6
"""Of a squared norm that divides an error, per dimension in the normalised space."""


class Routed(NamedTuple):
    """What the router makes of a batch."""

    x: Tensor
    """``[B, D]``: the vector that is encoded and reconstructed."""
    weights: Tensor
    """``[B, L]``: p, which sums to 1 over layers."""
    choice: Tensor
    """int64 ``[B]``: the layer with the largest weight."""


class RoutedCoder(LinearCoder):
    """``p = softmax(W_r v)`` with v the sum or mean of a token's vectors; the SAE works on ``x_r``.

    Hard routing takes ``x_r = x_{l*}``, ``l* = argmax p``, times ``(1 - p_{l*}).detach() + p_{l*}``, which is
    1 and carries p's gradient; soft routing takes ``sum_l p_l x_l``. The error is relative to ``||x_r||^2``:
    otherwise a smaller p would be a smaller loss. Layers share mean, scale and rotation, so that a code
    decodes without knowing its layer (after RouteSAE: Shi et al., 2025).
    """

    reads_layers = True
    chooses_layer = True
    error_weight = None
    config: RoutedConfig

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        directions = torch.randn(shape.layers_in, shape.d_in, dtype=torch.float32)
        self.W_route = nn.Parameter(directions / shape.d_in)

    def route(self, x_BLD: Tensor) -> Routed:
        """The choice for normalised vectors; differentiable in p while training."""
        v_BD = x_BLD.sum(1) if self.config.aggre == "sum" else x_BLD.mean(1)
        # token by token, so that a choice does not hang on the batch around it
        p_BL = (v_BD[:, None] * self.W_route).sum(2).softmax(1)
        choice_B = p_BL.argmax(1)
        x_BD = self.taken(x_BLD, p_BL, choice_B)
        if self.config.routing == "hard" and self.training and torch.is_grad_enabled():
            p_B1 = p_BL.gather(1, choice_B[:, None])
            x_BD = x_BD * ((1 - p_B1).detach() + p_B1)
        return Routed(x_BD, p_BL, choice_B)

    def taken(self, x_BLD: Tensor, p_BL: Tensor, choice_B: Tensor) -> Tensor:
        """``[B, D]``: each token's chosen vector, or the mixture."""
        if self.config.routing == "soft":
            return (p_BL[:, :, None] * x_BLD).sum(1)
        return x_BLD[torch.arange(len(x_BLD), device=x_BLD.device), choice_B]

    def prepare(self, x_BLD: Tensor) -> Tensor:
        """The vectors themselves, or each with mean 0 and variance 1 over its dimensions (``layer_norm``)."""
        x_BLD = self.read(x_BLD)
        if not self.config.layer_norm:
            return x_BLD
        return nn.functional.layer_norm(x_BLD, x_BLD.shape[-1:])

    def relative_error(
        self, x_BD: Tensor, codes: SparseCodes, W_dec_FD: Matrix, weight_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The mean over tokens of ``weight ||x - x_hat||^2``, and ``x_hat``."""
        x_hat = self.decode_normalized(codes, W_dec_FD)
        return (weight_B * (x_BD - x_hat).square().sum(1)).mean(), x_hat

    def loss(self, batch: Batch) -> LossOutput:
        """``||x_r - x_hat||^2 / ||x_r||^2 + balance L sum_l share_l mean p_l``, the penalty and AuxK."""
        W_enc, W_dec = self.W_enc.rows(), self.W_dec.rows()
        routed = self.route(self.norm_in(self.prepare(batch.x)))
        x = routed.x
        codes = self.encode_normalized(x, W_enc, W_dec)
        weight_B = 1 / x.square().sum(1).clamp_min(SMALLEST * x.shape[1])
        error, x_hat = self.relative_error(x, codes, W_dec, weight_B)
        self.count_firing(codes)
        layers = self.shape.layers_in
        share_L = processes().mean(torch.bincount(routed.choice, minlength=layers) / max(1, len(x)))
        balance = layers * (share_L * routed.weights.mean(0)).sum()
        terms = {"relative_mse": error, "balance": self.config.balance * balance}
        terms |= self.penalty(codes, W_dec) | self.auxk(x, x_hat, W_enc, W_dec)
        shares = {f"layer_share_{i}": share for i, share in enumerate(share_L.unbind())}
        return LossOutput(terms, codes, x.detach(), x_hat, shares)

    def encode(self, x: Tensor) -> SparseCodes:
        """``[B, L, D]`` in the data's space -> codes of the layer that each token takes."""
        routed = self.route(self.norm_in(self.prepare(x)))
        return self.encode_normalized(routed.x, self.W_enc.rows(), self.W_dec.rows())

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """``[B, D]``: x_r in the data's space (of ``prepare``)."""
        prepared = self.prepare(batch.x)
        routed = self.route(self.norm_in(prepared))
        return self.taken(prepared, routed.weights, routed.choice)

    @torch.no_grad()
    def initialize(self, sample: Batch) -> None:
        """Statistics of all layers' vectors together; ``b_dec`` at their normalised mean."""
        vectors = self.prepare(sample.x).flatten(0, 1)
        super().initialize(Batch(vectors, vectors))
