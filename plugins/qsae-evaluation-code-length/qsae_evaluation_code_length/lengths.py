"""Bits of counted codes: probabilities from the fitted tokens, lengths of the scored ones.

Shapes: F latents, L levels, G groups of scored tokens. Sums in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qsae_evaluation_code_length.counts import FIT, CodeCounts

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
    return _bernoulli_bits(p_F, active[1:].double(), counts.tokens[1:, None].double())


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


def uniform_support_bits(counts: CodeCounts, active: Tensor) -> float:
    """Bits of all scored tokens by a code for which all latents are equally likely:
    ``p = (sum_j n_j + 1/2) / (n F + 1)``, the density of the fitted tokens."""
    n_latents = active.shape[1]
    fitted, scored = float(counts.tokens[FIT]), float(counts.tokens[1:].sum())
    p = (active[FIT].double().sum() + 0.5) / (fitted * n_latents + 1)
    on = active[1:].double().sum()
    return float(_bernoulli_bits(p, on, torch.tensor(scored * n_latents, dtype=torch.float64)))


def uniform_value_bits(counts: CodeCounts, active: Tensor) -> float:
    """The same of values: ``log2`` of the highest level that occurs, levels being counted from 1."""
    n_active = float(active[1:].sum())
    if not counts.quantized:
        return FLOAT_BITS * n_active
    if counts.levels is None:
        return 0.0
    used_L = counts.levels.sum((0, 1)).nonzero()[:, 0]
    return n_active * math.log2(max(1, int(used_L.max()))) if len(used_L) else 0.0


def standard_error(bits_G: Tensor, tokens_G: Tensor) -> float | None:
    """Of the mean over tokens, from the means of groups of them; None where fewer than two groups have any.

    ``se^2 = G / (G - 1) sum_g (n_g / n)^2 (m_g - m)^2``, m the mean over all tokens.
    """
    some = tokens_G > 0
    n_G, groups = tokens_G[some].double(), int(some.sum())
    if groups < 2:
        return None
    mean = bits_G.sum() / n_G.sum()
    deviation_G = (bits_G[some] / n_G - mean) * n_G / n_G.sum()
    return float((deviation_G.square().sum() * groups / (groups - 1)).sqrt())


def _bernoulli_bits(p: Tensor, on: Tensor, of: Tensor) -> Tensor:
    return -(on * p.log2() + (of - on) * (1 - p).log2())
