"""What a second pass counts: tokens that any child covers, and firings of siblings together.

Shapes: N entries of codes, F latents, C (parent, child) pairs, Q pairs of siblings.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.measuring import pairs_of_tokens, whole_tokens
from qsae_evaluation_splitting.families import Families


class Siblings:
    """Counts for families that are known.

    Args:
        families: of which parents.
        n_latents: F.
        max_children: children of a parent that are compared with each other, the first ones.
    """

    def __init__(self, families: Families, n_latents: int, max_children: int) -> None:
        self.families, self.n_latents = families, n_latents
        self.covered = torch.zeros(len(families.parents), dtype=torch.int64)
        """Of each parent: on how many tokens it and any child fire."""
        order = families.child.argsort(stable=True)
        self._family_by_child = families.family[order]
        counts = torch.bincount(families.child, minlength=n_latents)
        self._first_F, self._count_F = counts.cumsum(0) - counts, counts
        self._number_F = torch.full((n_latents,), -1, dtype=torch.int64)
        self._number_F[families.parents] = torch.arange(len(families.parents))
        self._family_Q, self._keys_Q = self._pairs(max_children)
        self._keys = self._keys_Q.unique()
        self._together = torch.zeros_like(self._keys)
        self._compared_F = torch.zeros(n_latents, dtype=torch.bool)
        self._compared_F[families.child[families.rank < max_children]] = True

    def _pairs(self, max_children: int) -> tuple[Tensor, Tensor]:
        """Of each family the pairs of its first children: number of the family, ``i F + j`` with i < j."""
        which = self.families.rank < max_children
        family, child = self.families.family[which], self.families.child[which]
        order = child.argsort(stable=True)
        order = order[family[order].argsort(stable=True)]
        family, child = family[order], child[order]
        behind = torch.searchsorted(family, family, right=True) - torch.arange(len(family)) - 1
        first = torch.repeat_interleave(torch.arange(len(family)), behind)
        starts = behind.cumsum(0) - behind
        second = first + 1 + torch.arange(len(first)) - starts[first]
        return family[first], child[first] * self.n_latents + child[second]

    def add(self, rows_N: Tensor, latents_N: Tensor) -> None:
        """Count a batch; int64, by token."""
        for piece in whole_tokens(rows_N, self._count_F[latents_N]):
            self._cover(rows_N[piece], latents_N[piece])
        compared = self._compared_F[latents_N]
        for i, j in pairs_of_tokens(rows_N[compared], latents_N[compared]):
            keys = i * self.n_latents + j
            place = torch.searchsorted(self._keys, keys).clamp_max(len(self._keys) - 1)
            place = place[self._keys[place] == keys]
            self._together += torch.bincount(place, minlength=len(self._keys))

    def _cover(self, rows_N: Tensor, latents_N: Tensor) -> None:
        n = len(self.covered)
        counts = self._count_F[latents_N]
        entry = torch.repeat_interleave(torch.arange(len(counts)), counts)
        within = torch.arange(len(entry)) - (counts.cumsum(0) - counts)[entry]
        family = self._family_by_child[self._first_F[latents_N[entry]] + within]
        by_child = (rows_N[entry] * n + family).unique()
        number = self._number_F[latents_N]
        by_parent = rows_N[number >= 0] * n + number[number >= 0]
        both = by_parent[torch.isin(by_parent, by_child)]
        self.covered += torch.bincount(both % n, minlength=n)

    def merge(self, other: Siblings) -> None:
        """Add the counts of another one of the same families."""
        self.covered += other.covered
        self._together += other._together

    def mean_jaccard(self, fired_F: Tensor, *, n_tokens: int | None = None) -> Tensor:
        """float64 ``[families]``: mean over pairs of a parent's children of n_jk / (n_j + n_k - n_jk).

        Args:
            n_tokens: what it would be if they fired independently, over so many tokens; None: what it is.
        """
        i, j = self._keys_Q // self.n_latents, self._keys_Q % self.n_latents
        if n_tokens is None:
            both = self._together[torch.searchsorted(self._keys, self._keys_Q)].double()
        else:
            both = fired_F[i].double() * fired_F[j] / n_tokens
        jaccard = both / (fired_F[i] + fired_F[j] - both)
        total, count = (torch.zeros(len(self.covered), dtype=torch.float64) for _ in range(2))
        total.index_add_(0, self._family_Q, jaccard)
        count.index_add_(0, self._family_Q, torch.ones_like(jaccard))
        return total / count
