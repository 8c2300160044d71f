"""Wrong code quantizers, each made from the kit's right one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qsae_core import ComponentSpec
from qsae_core.conformance.reference_parts import EighthsCodes, PlainConfig


class LosesSmallValues(EighthsCodes):
    """Rounds small active values to zero."""

    def forward(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        values = values_N.detach()
        return (values * 8).round().clamp(-127, 127) / 8 + (values_N - values)

    def pack(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        return (self(values_N, latent_N).detach() * 8).to(torch.uint8)


class TooFewBits(EighthsCodes):
    """Says that its levels take four bits."""

    bits = 4.0


class MovesOn(EighthsCodes):
    """Adds an eighth each time, beyond what it stores."""

    def forward(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        return (super().forward(values_N, latent_N) + values_N.detach().sign() / 8).clamp(-15, 15)

    def pack(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        eighths = self(values_N, latent_N).detach() * 8
        return (eighths.abs() + 128 * (eighths < 0)).to(torch.uint8)


class CutsTheGradient(EighthsCodes):
    """Rounds without handing the gradient on."""

    def forward(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        return super().forward(values_N, latent_N).detach()


class ForgetsItsRange(EighthsCodes):
    """Measures a range and keeps it outside the state."""

    widest = 1.0

    def forward(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        if self.training:
            self.widest = 2.0
        return super().forward(values_N * 1.0, latent_N).clamp(max=self.widest)

    def pack(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        return super().pack(values_N.clamp(max=self.widest), latent_N)


class MeasuresInEvaluation(EighthsCodes):
    """Follows the largest value, in evaluation mode too."""

    def __init__(self, config: Any, n_latents: int) -> None:
        super().__init__(config, n_latents)
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        if values_N.numel():
            self.largest.copy_(torch.maximum(self.largest, values_N.detach().max()))
        return super().forward(values_N, latent_N)


def codes(cls: type[EighthsCodes]) -> ComponentSpec:
    return ComponentSpec("code_quantizer", cls.__name__.lower(), PlainConfig, f"{__name__}:{cls.__name__}")


RIGHT: list[ComponentSpec] = []
WRONG = [
    (codes(LosesSmallValues), "values"),
    (codes(TooFewBits), "pack"),
    (codes(MovesOn), "idempotent"),
    (codes(CutsTheGradient), "gradient"),
    (codes(ForgetsItsRange), "state"),
    (codes(MeasuresInEvaluation), "eval-keeps-state"),
]
