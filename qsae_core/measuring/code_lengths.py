"""Bits of counted codes: probabilities from the fitted tokens, lengths of the scored ones.

Shapes: F latents, L levels, G groups of scored tokens. Sums in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.measuring.code_counts import FIT, CodeCounts

FLOAT_BITS = 32.0
SYMBOLS = 255
"""Levels that a uint8 can hold beside zero: the alphabet of the pooled distribution."""
POOLED_WEIGHT = 16.0
"""How many observations of its own a latent needs until they count as much as what all latents do."""


def support_bits(counts: CodeCounts, active: Tensor) -> Tensor:
    """``[G, F]``: bits of all scored tokens for which latents are active, each coded on its own.

    ``-log2 p_j`` where latent j is active and ``-log2 (1 - p_j)`` where not, with the estimate of Krichevsky
    and Trofimov (1981), ``p_j = (n_j + 1/2) / (n + 1)``, from n fitted tokens.
    """
    p_F = (active[FIT].double() + 0.5) / (float(counts.tokens[FIT]) + 1)
    return bernoulli_bits(p_F, active[1:].double(), counts.tokens[1:, None].double())


def value_bits(counts: CodeCounts, active: Tensor) -> Tensor:
    """``[G, F]``: bits of all scored values: ``-log2 q_j(level)``, with the latent's own fitted frequencies
    mixed with those of all latents; 32 for each value that is not quantized."""
    if not counts.quantized:
        return FLOAT_BITS * active[1:].double()
    if counts.levels is None:
        return torch.zeros(active[1:].shape, dtype=torch.float64)
    fit_FL = counts.levels[FIT].double()
    pooled_L = fit_FL.sum(0)
    pooled_L = (pooled_L + 1 / SYMBOLS) / (pooled_L.sum() + 1)
    q_FL = (fit_FL + POOLED_WEIGHT * pooled_L) / (fit_FL.sum(1, keepdim=True) + POOLED_WEIGHT)
    log_FL = q_FL.log2()
    return torch.stack([-(scored_FL.double() * log_FL).sum(1) for scored_FL in counts.levels[1:]])


def bernoulli_bits(p: Tensor, on: Tensor, of: Tensor) -> Tensor:
    """Of ``on`` events with probability p among ``of``."""
    return -(on * p.log2() + (of - on) * (1 - p).log2())
