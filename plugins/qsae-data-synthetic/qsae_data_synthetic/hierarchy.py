"""Trees of features, and the probabilities that give every feature its rate.

Shapes: F features, P parents (the first P features), C children of each, T top features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qsae_data_synthetic import SyntheticConfig


@dataclass(frozen=True)
class Hierarchy:
    """Features in trees come first, level by level; the children of parent p are C consecutive features.

    Attributes:
        parent: int64 ``[F]``, the parent of each feature; -1 for roots and features in no tree.
        top: int64 ``[T]``, the features without a parent.
        threshold: float32 ``[T]``; a top feature fires where its Gaussian is below it.
        first_child: int64 ``[P]``.
        bounds: float32 ``[P, C]``, cumulative probabilities of the children, given that their parent fires:
            child c fires where the rank of their Gaussian is between bounds c - 1 and c, none above the last.
        rate: float64 ``[F]``, the probability that a feature's activation z_i a_i is positive.
    """

    parent: Tensor
    top: Tensor
    threshold: Tensor
    first_child: Tensor
    bounds: Tensor
    rate: Tensor


def plant(config: SyntheticConfig, wanted_F: Tensor, p_positive: Tensor) -> Hierarchy:
    """Make the trees, most frequent features at the roots, and solve for the probabilities.

    ``wanted_F`` are the rates asked for. Siblings exclude each other, so they cannot fire more often together
    than their parent: where they ask for more, all of them get the same share less. A child fires only where
    its parent's activation is positive, and a firing may still have the magnitude 0; both are allowed for.
    """
    parent, first_child = _family(config)
    rate = wanted_F.clone()
    top = (parent < 0).nonzero()[:, 0]
    p_top = (wanted_F[top] / p_positive[top]).clamp(max=1)
    rate[top] = p_top * p_positive[top]
    conditional = []
    start, size = 0, config.n_roots
    for _ in range(config.depth):
        parents = torch.arange(start, start + size)
        children = first_child[parents, None] + torch.arange(config.branching)
        firing = wanted_F[children] / p_positive[children]
        scale = (rate[parents] / firing.sum(1)).clamp(max=1)[:, None]
        rate[children] = wanted_F[children] * scale
        conditional.append(firing * scale / rate[parents, None])
        start, size = start + size, size * config.branching
    bounds = torch.cat(conditional).cumsum(1) if conditional else torch.zeros(0, config.branching)
    return Hierarchy(
        parent, top, torch.special.ndtri(p_top).float(), first_child, bounds.clamp(max=1).float(), rate
    )


def _family(config: SyntheticConfig) -> tuple[Tensor, Tensor]:
    """Parent of each feature, and first child of each parent."""
    parent = torch.full((config.n_features,), -1)
    n_parents = (config.in_trees - config.n_roots) // config.branching
    first_child = config.n_roots + config.branching * torch.arange(n_parents)
    parent[config.n_roots : config.in_trees] = torch.arange(n_parents).repeat_interleave(config.branching)
    return parent, first_child
