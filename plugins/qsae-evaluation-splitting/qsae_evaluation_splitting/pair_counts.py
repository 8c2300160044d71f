"""On how many tokens two latents fire together, in bounded memory and time. Shapes: F latents, P pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.measuring import KeyCounts, pairs_of_tokens


class Together(NamedTuple):
    """What was counted."""

    fired: Tensor
    """int64 ``[F]``: n_i."""
    sampled: Tensor
    """Bool ``[F]``: latents all of whose pairs are in what follows."""
    i: Tensor
    """int64 ``[P]``, ascending: of pairs that fired together."""
    j: Tensor
    """int64 ``[P]``, above i."""
    counts: Tensor
    """int64 ``[P]``: n_ij."""


class PairCounts:
    """Exact counts n_i of latents, and n_ij of pairs that have a latent of the sample.

    Latents stand in an order drawn once; the sample is the first F / 2^h of them, at first all. While its
    pairs are more than ``max_pairs``, or their firings more than ``max_updates``, h grows. Both only become
    more with data, so the h that is reached, and all counts, depend on the data alone and not on batches or
    their order.

    Args:
        n_latents: F.
        max_pairs: pairs that are kept at most, unless one latent alone has more.
        max_updates: sum over the sample of a latent's firings times the other latents that fire with it.
    """

    def __init__(self, n_latents: int, max_pairs: int, max_updates: int) -> None:
        self.n_latents, self.max_pairs, self.max_updates = n_latents, max_pairs, max_updates
        order = torch.randperm(n_latents, generator=torch.Generator().manual_seed(0))
        self._place_F = order.argsort()
        self.n_sampled = n_latents
        self.fired_F, self._updates_F = (torch.zeros(n_latents, dtype=torch.int64) for _ in range(2))
        self._pairs = KeyCounts(self._wanted)

    def found(self) -> Together:
        """All that was counted."""
        self._pairs.settle()
        self._shrink()
        keys, counts = self._pairs.keys, self._pairs.counts
        return Together(self.fired_F, self._sampled_F, *self._latents(keys), counts)

    def add(self, rows_N: Tensor, latents_N: Tensor) -> None:
        """Count a batch.

        Args:
            rows_N: int64, the token of each firing, ascending.
            latents_N: int64, its latent.
        """
        self.fired_F += torch.bincount(latents_N, minlength=self.n_latents)
        together_N = torch.bincount(rows_N)[rows_N] - 1
        self._updates_F.index_add_(0, latents_N, together_N)
        self._shrink()
        wanted_N = None if self.n_sampled == self.n_latents else self._sampled_F[latents_N]
        for i, j in pairs_of_tokens(rows_N, latents_N, wanted_N):
            self._pairs.add(i * self.n_latents + j)
            self._shrink()

    def merge(self, other: PairCounts) -> None:
        """Add the counts of another one of the same latents."""
        self.n_sampled = min(self.n_sampled, other.n_sampled)
        self.fired_F += other.fired_F
        self._updates_F += other._updates_F
        self._pairs.merge(other._pairs)
        self._shrink()

    @property
    def _sampled_F(self) -> Tensor:
        return self._place_F < self.n_sampled

    def _latents(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        return keys // self.n_latents, keys % self.n_latents

    def _wanted(self, keys: Tensor) -> Tensor:
        """Pairs with a latent of the sample."""
        if self.n_sampled == self.n_latents:
            return torch.ones_like(keys, dtype=torch.bool)
        i, j = self._latents(keys)
        return self._sampled_F[i] | self._sampled_F[j]

    def _shrink(self) -> None:
        """Halve the sample until it is within both bounds."""
        while self.n_sampled > 1 and (
            len(self._pairs) > self.max_pairs
            or int(self._updates_F[self._sampled_F].sum()) > self.max_updates
        ):
            self.n_sampled = -(-self.n_sampled // 2)
            self._pairs.forget()
