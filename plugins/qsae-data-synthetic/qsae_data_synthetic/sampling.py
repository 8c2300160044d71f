"""Drawing tokens from a world. Shapes: B tokens, F features, D width, N active features in all tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import SparseCodes
from qsae_core.kernels import decode
from qsae_data_synthetic.world import World


class Sample(NamedTuple):
    """Tokens and what they are made of."""

    x: Tensor
    codes: SparseCodes
    """True activations z_i a_i, all positive, features ascending within a token."""


class Firing(NamedTuple):
    """Active features: ``[N]`` tokens, features and magnitudes."""

    token: Tensor
    feature: Tensor
    magnitude: Tensor


@torch.no_grad()
def draw(world: World, tokens: int, generator: torch.Generator) -> Sample:
    """Draw tokens. Only top features are tried on every token; children only where their parent is active."""
    factors = torch.randn(tokens, world.config.rank, generator=generator)
    level = _draw_top(world, factors, generator)
    firings = [level]
    for _ in range(world.config.depth):
        level = _draw_children(world, factors, level, generator)
        firings.append(level)
    codes = _codes(firings, tokens, world.config.n_features)
    x = decode(codes, world.dictionary) + world.bias
    if world.config.noise_std > 0:
        x += world.config.noise_std * torch.randn(x.shape, generator=generator)
    return Sample(x, codes)


def _draw_top(world: World, factors: Tensor, generator: torch.Generator) -> Firing:
    copula, hierarchy = world.copula, world.hierarchy
    gaussian = torch.randn(len(factors), len(hierarchy.top), generator=generator).mul_(copula.top_own)
    gaussian.addmm_(factors, copula.top_loading.T)
    token, position = (gaussian < hierarchy.threshold).nonzero(as_tuple=True)
    return _with_magnitude(world, token, hierarchy.top[position], generator)


def _draw_children(world: World, factors: Tensor, level: Firing, generator: torch.Generator) -> Firing:
    """At most one child of each active parent of the level above."""
    copula, hierarchy = world.copula, world.hierarchy
    is_parent = level.feature < len(hierarchy.first_child)
    token, parent = level.token[is_parent], level.feature[is_parent]
    gaussian = (factors[token] * copula.child_loading[parent]).sum(1)
    gaussian += copula.child_own[parent] * torch.randn(len(token), generator=generator)
    rank = torch.special.ndtr(gaussian)
    child = (rank[:, None] >= hierarchy.bounds[parent]).sum(1)
    fires = child < world.config.branching
    feature = (hierarchy.first_child[parent] + child)[fires]
    return _with_magnitude(world, token[fires], feature, generator)


def _with_magnitude(world: World, token: Tensor, feature: Tensor, generator: torch.Generator) -> Firing:
    """Those whose magnitude is positive."""
    mean, std = world.magnitudes.mean[feature], world.magnitudes.std[feature]
    magnitude = mean + std * torch.randn(len(feature), generator=generator)
    positive = magnitude > 0
    return Firing(token[positive], feature[positive], magnitude[positive])


def _codes(firings: list[Firing], tokens: int, n_features: int) -> SparseCodes:
    token, feature, magnitude = (torch.cat(parts) for parts in zip(*firings, strict=True))
    order = (token * n_features + feature).argsort()
    offsets = torch.zeros(tokens + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(token, minlength=tokens), 0, out=offsets[1:])
    return SparseCodes(feature[order].to(torch.int32), magnitude[order], offsets, n_features)
