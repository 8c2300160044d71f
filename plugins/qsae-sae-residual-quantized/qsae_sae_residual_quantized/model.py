"""The residual-quantized SAE. Shapes: B tokens, D model width, F latents of all levels."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsae_core.coders import BinaryLatentCoder, LevelRules, usual_l0
from qsae_core.conformance import Case
from qsae_core.contracts import Batch, CoderShape, LossOutput, Parts, SparseCodes, join_latents
from qsae_core.kernels import Matrix, as_rows, decode, encode, processes, squared_error
from qsae_sae_residual_quantized import ResidualQuantizedConfig


class Level(NamedTuple):
    """What one level does with a batch."""

    latents: slice
    residual: Tensor
    """``[B, D]``: r_i, what it codes; of r_0 the gradient is that of b_dec, and others may have one."""
    codes: SparseCodes
    """Over its own latents, in units of r_i."""
    x_hat: Tensor
    """``[B, D]``: what it makes of r_i."""


class ResidualQuantizedSAE(BinaryLatentCoder):
    """r_0 = x - b_dec; x_hat_i = f_i W_i with f_i = m 1[sigma(W_enc_i r_i + b_i) >= 1/2]; and
    r_(i+1) = 2 (r_i - x_hat_i), without gradient unless ``joint_gradient``.

    The reconstruction is b_dec + sum_i x_hat_i / 2^i, so that latents of level i have the value m / 2^i in
    the code. The loss is sum_i 1/2 ||r_i - x_hat_i||^2 + sum_i c_i penalty_i with c = 1, 2.5, 4, 8, 16, ...
    Rows of W_dec are quantized, ternary by default.
    """

    error_weight = 0.5
    config: ResidualQuantizedConfig
    sparsity: LevelRules

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Levels that the conformance suite's few latents have room for."""
        options: list[dict[str, Any]] = [{}, {"n_levels": 1}, {"n_levels": 3}]
        options += [{"joint_gradient": False}, {"secant": True}, {"joint_gradient": False, "secant": False}]
        return [Case(chosen) for chosen in options]

    def __init__(self, config: ResidualQuantizedConfig, shape: CoderShape, parts: Parts) -> None:
        prefixes, make = config.prefixes(), parts.sparsity
        prices = penalty_weights(config.n_levels)
        super().__init__(config, shape, parts._replace(sparsity=lambda n: LevelRules(make, prefixes, prices)))
        self.parts = parts  # for coders of fewer levels
        self.groups = [slice(a, b) for a, b in zip((0, *prefixes), prefixes, strict=False)]
        if config.secant:
            for rule in self.sparsity.each:
                rule.needs_gates = True  # type: ignore[misc]

    def each_level(self, x_BD: Tensor, W_enc_FD: Matrix, W_dec_FD: Matrix) -> Iterator[Level]:
        """Level after level, from normalised inputs."""
        W_enc = as_rows(W_enc_FD).dense()
        residual = x_BD - self.b_dec
        for latents, rule in zip(self.groups, self.sparsity.each, strict=True):
            activation = self.activation.part(latents).train(self.training)
            codes = encode(residual, W_enc[latents], self.b_enc[latents], activation, rule)
            x_hat = decode(_among_all(codes, latents, self.n_latents), W_dec_FD)
            yield Level(latents, residual, codes, x_hat)
            left = residual - x_hat
            residual = 2 * (left if self.config.joint_gradient else left.detach())

    def encode_normalized(self, x_BD: Tensor, W_enc_FD: Matrix, W_dec_FE: Matrix) -> SparseCodes:
        """The levels' codes as those of one dictionary."""
        return _joined([level.codes for level in self.each_level(x_BD, W_enc_FD, W_dec_FE)])

    def loss(self, batch: Batch) -> LossOutput:
        """``sum_i 1/2 ||r_i - x_hat_i||^2``, plus what sparsity costs and AuxK on each residual."""
        W_enc, W_dec = self.W_enc.rows(), self.W_dec.rows()
        x = self.norm_in(batch.x)
        levels = list(self.each_level(x, W_enc, W_dec))
        codes = _joined([level.codes for level in levels])
        errors = [squared_error(level.residual, level.x_hat) for level in levels]
        self.count_firing(codes)
        terms = {"mse": torch.stack(errors).sum() / 2} | self.penalty(codes, W_dec)
        terms |= self.auxk_of(levels, W_enc, W_dec)
        if self.config.secant:
            terms["secant"] = self.secant(codes, W_dec)
        with torch.no_grad():
            last = levels[-1]
            x_hat = x - (last.residual - last.x_hat) / 2 ** (len(levels) - 1)
            together = processes()
            variance = together.mean((x - together.mean_row(x)).square().sum(1).mean())
            means = [together.mean(error.detach()) for error in errors]
            values = {f"fvu_{i + 1}": error / (4**i * variance) for i, error in enumerate(means)}
        return LossOutput(terms, codes, x, x_hat, values)

    def auxk_of(self, levels: list[Level], W_enc_FD: Matrix, W_dec_FD: Matrix) -> dict[str, Tensor]:
        """AuxK: the dead latents of a level model what the level left of its own residual."""
        turn = self.auxk_turn()
        if turn is None:
            return {}
        dead, total = self.dead.mask(), torch.zeros((), device=self.device)
        for level in levels:
            own = torch.zeros_like(dead)
            own[level.latents] = dead[level.latents]
            residual = level.residual[turn]
            error = residual - level.x_hat[turn]
            total = total + self.soft_auxk(residual, error, W_enc_FD, W_dec_FD, own, None)
        return {"auxk": self.auxk_weight * total}

    @torch.no_grad()
    def fit_codes(self, x_BD: Tensor) -> None:
        """Biases and magnitudes of each level from the residuals that the levels before it leave."""
        residual = x_BD
        for latents, rule in zip(self.groups, self.sparsity.each, strict=True):
            self.fit_bits(residual, latents, usual_l0(rule))
            pre_acts = residual @ self.W_enc.master[latents].T + self.b_enc[latents]
            f = (pre_acts >= 0) * self.activation.base[latents]
            residual = 2 * (residual - f @ self.W_dec.master[latents])


def penalty_weights(n_levels: int) -> list[float]:
    """What the penalty of each level is multiplied by: 1, 2.5, 4, 8, 16, ..."""
    return [(1.0, 2.5)[i] if i < 2 else 2.0**i for i in range(n_levels)]


def _among_all(codes: SparseCodes, latents: slice, n_latents: int) -> SparseCodes:
    """A level's codes with the numbers that its latents have in the whole dictionary."""
    return replace(codes, indices=codes.indices + latents.start, n_latents=n_latents, memo={})


def _joined(codes: list[SparseCodes]) -> SparseCodes:
    return join_latents([part.with_values(part.values / 2**i) for i, part in enumerate(codes)])
