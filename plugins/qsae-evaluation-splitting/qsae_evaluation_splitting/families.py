"""Parents and their children, from counts of pairs. Shapes: F latents, P pairs, C (parent, child) pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_evaluation_splitting import SplittingConfig
from qsae_evaluation_splitting.pair_counts import Together


class Families(NamedTuple):
    """Parents that have two children or more."""

    parents: Tensor
    """int64 ``[families]``: latents, ascending."""
    family: Tensor
    """int64 ``[C]``, ascending: number of the parent in ``parents``."""
    child: Tensor
    """int64 ``[C]``: a latent; those of a parent in the order of their firings, the most frequent first."""
    shared: Tensor
    """int64 ``[C]``: on how many tokens both fire."""
    rank: Tensor
    """int64 ``[C]``: place among the parent's children, from 0."""

    @property
    def sizes(self) -> Tensor:
        """int64 ``[families]``: children of each."""
        return torch.bincount(self.family, minlength=len(self.parents))


def may_be_parents(together: Together, groups_F: Tensor | None, n_tokens: int, c: SplittingConfig) -> Tensor:
    """Bool ``[F]``: latents that are asked for children.

    Args:
        groups_F: int64, the group of each latent of a nested coder; the last group has nobody below it.
    """
    often = together.fired >= c.min_fired
    asked = together.sampled & often & (together.fired.double() <= c.max_density * n_tokens)
    return asked if groups_F is None else asked & (groups_F < groups_F.max())


def children(
    together: Together, asked_F: Tensor, groups_F: Tensor | None, c: SplittingConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs with P(parent fires | child fires) > ``child_share``: parent, child and n_ij, int64 ``[C]``."""
    found = []
    for parent, child in ((together.i, together.j), (together.j, together.i)):
        n_child = together.fired[child]
        which = (
            asked_F[parent]
            & (n_child >= c.min_fired)
            & (together.counts.double() > c.child_share * n_child.double())
        )
        if groups_F is not None:
            which &= groups_F[parent] < groups_F[child]
        found.append((parent[which], child[which], together.counts[which]))
    parents, kids, shared = (torch.cat(parts) for parts in zip(*found, strict=True))
    return parents, kids, shared


def families(parents_C: Tensor, children_C: Tensor, shared_C: Tensor, fired_F: Tensor) -> Families:
    """Those with two children or more."""
    order = children_C.argsort(stable=True)
    order = order[fired_F[children_C[order]].argsort(descending=True, stable=True)]
    order = order[parents_C[order].argsort(stable=True)]
    parents_C, children_C, shared_C = parents_C[order], children_C[order], shared_C[order]
    large = torch.bincount(parents_C, minlength=len(fired_F))[parents_C] >= 2
    parents, family = parents_C[large].unique(return_inverse=True)
    rank = torch.arange(len(family)) - torch.searchsorted(family, family)
    return Families(parents, family, children_C[large], shared_C[large], rank)
