"""The quantized matryoshka SAE. Shapes: B tokens, D model width, F latents, G levels, N entries."""

from __future__ import annotations

import pathlib
from typing import Any

import torch
from torch import Tensor

from qsae_core.coders import BinaryLatentCoder, LevelRules, fvu_by_level, usual_l0
from qsae_core.conformance import Case
from qsae_core.contracts import Batch, CoderShape, LossOutput, Parts, SparseCodes
from qsae_core.kernels import decode_groups, prefix_errors
from qsae_sae_quantized_matryoshka import QuantizedMatryoshkaConfig


class QuantizedMatryoshkaSAE(BinaryLatentCoder):
    """f_j = m_j 1[s_j >= 1/2], s = sigma(W_enc (x - b_dec) + b_enc); every level has its own
    sparsity rule, and a level twice as large keeps twice as many latents.

    r_i = b_dec + sum of f_j w_j over the latents of levels 0 to i; the loss is sum_i c_i/2 ||x - r_i||^2 with
    c = 1 for the whole dictionary, ``prefix_weight`` for the levels before.
    For a latent of level i, m_j = 2^(n - i - 2) gamma / 2^(n - 1) times a learned factor: the places of the
    bits of a number. Rows of W_dec are quantized, ternary by default.
    """

    error_weight = 0.5
    config: QuantizedMatryoshkaConfig
    sparsity: LevelRules

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Levels that the conformance suite's few latents have room for."""
        options: list[dict[str, Any]] = [
            {},
            {"n_levels": 1},
            {"n_levels": 2},
            {"gamma": 4.0},
            {"prefix_weight": 1.0},
        ]
        options += [{"joint_gradient": False}, {"secant": True}, {"joint_gradient": False, "secant": False}]
        return [Case(chosen) for chosen in options]

    def __init__(self, config: QuantizedMatryoshkaConfig, shape: CoderShape, parts: Parts) -> None:
        self.prefixes = prefixes = config.prefixes()
        make, sizes = parts.sparsity, config.sizes()
        shares = [size / sizes[0] for size in sizes]
        super().__init__(
            config, shape, parts._replace(sparsity=lambda n: LevelRules(make, prefixes, shares=shares))
        )
        self.weights = (*(config.prefix_weight for _ in sizes[1:]), 1.0)
        self.parts = parts  # for coders of fewer levels
        if config.secant:
            self.sparsity.needs_gates = True  # type: ignore[misc]

    @torch.no_grad()
    def fit_codes(self, x_BD: Tensor) -> None:
        """Biases for each level alone; gamma is the vectors' norm (root mean square) if it is not given."""
        gamma = self.config.gamma or float(x_BD.square().sum(1).mean().sqrt())
        for i, (start, end) in enumerate(zip((0, *self.prefixes), self.prefixes, strict=False)):
            self.fit_bits(x_BD, slice(start, end), usual_l0(self.sparsity.each[i]))
            self.activation.base[start:end] = gamma / 2 ** (i + 1)

    def loss(self, batch: Batch) -> LossOutput:
        """``sum_i c_i/2 ||x - r_i||^2``, plus what sparsity costs and AuxK.

        Level i's error changes level i alone, unless ``joint_gradient``.
        """
        W_enc, W_dec = self.W_enc.rows(), self.W_dec.rows()
        x = self.norm_in(batch.x)
        codes = self.encode_normalized(x, W_enc, W_dec)
        parts_BGD = decode_groups(codes, W_dec, self.prefixes)
        errors_G, whole = self.level_errors(x, parts_BGD)
        x_hat = whole + self.b_dec
        self.count_firing(codes)
        terms = {"mse": (errors_G * errors_G.new_tensor(self.weights)).sum() / 2}
        terms |= self.penalty(codes, W_dec) | self.auxk(x, x_hat, W_enc, W_dec)
        if self.config.secant:
            terms["secant"] = self.secant(codes, W_dec, self.error_weights(codes))
        return LossOutput(terms, codes, x, x_hat, fvu_by_level(errors_G, x))

    def level_errors(self, x_BD: Tensor, parts_BGD: Tensor) -> tuple[Tensor, Tensor]:
        """``[G]``: ``||x - r_i||^2``, mean over tokens; and ``[B, D]``, the sum of all parts, without
        gradient."""
        target = x_BD - self.b_dec
        if self.config.joint_gradient:
            return prefix_errors(parts_BGD, target)
        sums = parts_BGD.detach().cumsum(1)
        first = (target - parts_BGD[:, 0]).square().sum(1).mean()
        later = (target.detach()[:, None] - sums[:, :-1]) - parts_BGD[:, 1:]
        return torch.cat([first[None], later.square().sum(2).mean(0)]), sums[:, -1]

    def error_weights(self, codes: SparseCodes) -> Tensor:
        """float ``[N]``: the weights of all errors that each entry is in, together."""
        ends = torch.tensor(self.prefixes, device=codes.indices.device)
        level_N = torch.bucketize(codes.indices.long(), ends, right=True)
        weights_G = codes.values.new_tensor(self.weights)
        if self.config.joint_gradient:
            weights_G = weights_G.flip(0).cumsum(0).flip(0)
        return weights_G[level_N]
