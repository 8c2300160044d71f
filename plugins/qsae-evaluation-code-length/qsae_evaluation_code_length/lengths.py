"""What codes would take if all latents were alike, and how rough a mean of groups is.

Shapes: F latents, L levels, G groups of scored tokens. Sums in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qsae_core.measuring import FIT, FLOAT_BITS, CodeCounts, bernoulli_bits


def uniform_support_bits(counts: CodeCounts, active: Tensor) -> float:
    """Bits of all scored tokens by a code for which all latents are equally likely:
    ``p = (sum_j n_j + 1/2) / (n F + 1)``, the density of the fitted tokens."""
    n_latents = active.shape[1]
    fitted, scored = float(counts.tokens[FIT]), float(counts.tokens[1:].sum())
    p = (active[FIT].double().sum() + 0.5) / (fitted * n_latents + 1)
    on = active[1:].double().sum()
    return float(bernoulli_bits(p, on, torch.tensor(scored * n_latents, dtype=torch.float64)))


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
