"""Code quantizer ``ste``: evenly spaced levels per latent. Shapes: F latents, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_code_quantizers import SteConfig
from qsae_core.contracts import CodeQuantizer
from qsae_core.errors import ConfigError
from qsae_core.kernels import partners, processes

DECAY = 0.999
"""Each time a latent fires, its range shrinks to this share before the new values widen it again: weights
that change leave no range behind that nothing reaches any more."""


class SteCodes(CodeQuantizer):
    """``f_hat = q range_j / n`` with ``q = round(n f / range_j)`` from 1 to ``n = 2^bits - 1``.

    Zero stays zero and takes the level that is left over, so that a value takes ``bits`` bits exactly; with a
    sign ``n = 2^(bits - 1) - 1``. A latent's range is the largest magnitude that it had in training, lately.
    Latents that never fired take the largest range of all, and before any did, the range is 1. Values beyond
    their range are clipped.
    """

    splits = True
    range: Tensor

    def __init__(self, config: SteConfig, n_latents: int) -> None:
        super().__init__(config, n_latents)
        self.bits = float(config.n_bits)
        self.signed = config.signed
        self.most = 2 ** (config.n_bits - int(config.signed)) - 1
        self.register_buffer("range", torch.zeros(n_latents, dtype=torch.float32))

    def forward(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """Values on their latents' levels; the gradient goes straight through.

        Raises:
            ConfigError: for a negative value where ``signed`` is False.
        """
        values = values_N.detach()
        if not self.signed and bool((values < 0).any()):
            raise ConfigError(
                "codes have negative values, and this code quantizer is for codes without a sign",
                where="code_quantizer.signed",
                allowed="--code-quantizer.signed, or an activation that is never negative (relu)",
                next="add --code-quantizer.signed, or choose --activation relu",
            )
        if self.training:
            self._widen(values.abs(), latent_N.long())
        quantized = self._value(self._level(values, latent_N), latent_N).to(values.dtype)
        return quantized + (values_N - values)  # adds exactly 0, and lets the gradient through

    def pack(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """uint8 ``[N]``: 0 for zero, else the level; with a sign the highest bit is set for negative ones."""
        level = self._level(values_N.detach(), latent_N)
        sign = (level < 0).to(torch.uint8) * (self.most + 1)
        return level.abs().to(torch.uint8) + sign

    def unpack(self, levels_N: Tensor, latent_N: Tensor) -> Tensor:
        """float32 ``[N]``: the value of each level."""
        level = levels_N.to(torch.float32)
        if self.signed:
            negative = level > self.most
            level = torch.where(negative, (self.most + 1) - level, level)
        return self._value(level, latent_N)

    def _widen(self, magnitudes_N: Tensor, latent_N: Tensor) -> None:
        batch = torch.zeros_like(self.range)
        batch.scatter_reduce_(0, latent_N, magnitudes_N.float(), "amax")
        batch = processes().largest(batch)
        self.range.copy_(torch.where(batch > 0, torch.maximum(batch, self.range * DECAY), self.range))

    def _step(self, latent_N: Tensor) -> Tensor:
        widest = partners().largest(self.range.max())
        fallback = torch.where(widest > 0, widest, 1.0)
        found = torch.where(self.range > 0, self.range, fallback)
        return found.index_select(0, latent_N) / self.most

    def _level(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """Signed levels as float32; an active entry has at least 1."""
        level = (values_N.float().abs() / self._step(latent_N)).round_().clamp_(1, self.most)
        return level * values_N.float().sign()

    def _value(self, level_N: Tensor, latent_N: Tensor) -> Tensor:
        return level_N * self._step(latent_N)
