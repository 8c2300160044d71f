"""Targets of transcoders: the features of a token, in another dictionary.

Shapes: B tokens, F features, E width of a target.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from qsae_core.contracts import SparseCodes
from qsae_core.kernels import decode
from qsae_data_synthetic import SyntheticConfig
from qsae_data_synthetic.world import nearly_orthogonal, seeded_generator


@dataclass(frozen=True)
class Targets:
    """``y = sum_i ReLU(z_i a_i - threshold) e_i + bias + noise``, over the features that count.

    Attributes:
        dictionary: float32 ``[F, E]``, unit rows; zeros for features that do not count.
        bias: float32 ``[E]``.
    """

    config: SyntheticConfig
    dictionary: Tensor
    bias: Tensor

    def features(self, codes: SparseCodes) -> SparseCodes:
        """``ReLU(z_i a_i - threshold)`` of the features that count: what a perfect transcoder's code is."""
        values = (codes.values - self.config.target_threshold).clamp_min(0)
        counts = self.dictionary.any(1)
        return codes.with_values(values * counts[codes.indices.long()])

    def draw(self, codes: SparseCodes, generator: torch.Generator) -> Tensor:
        """``[B, E]``: the targets of tokens with these true activations."""
        y = decode(self.features(codes), self.dictionary) + self.bias
        if self.config.noise_std > 0:
            y += self.config.noise_std * torch.randn(y.shape, generator=generator)
        return y


def build_targets(config: SyntheticConfig) -> Targets | None:
    """What the config and ``world_seed`` decide; None where vectors are their own targets."""
    if config.d_target is None:
        return None

    def seeded(ingredient: str) -> torch.Generator:
        return seeded_generator(config.world_seed, f"target {ingredient}")

    rows = nearly_orthogonal(
        config.n_features, config.d_target, config.orthogonalize_steps, seeded("dictionary")
    )
    order = torch.randperm(config.n_features, generator=seeded("features"))
    rows[order[config.n_target_features :]] = 0
    bias = normalize(torch.randn(config.d_target, generator=seeded("bias")), dim=0)
    return Targets(config, rows, config.bias_norm * bias)
