"""How often each latent fired on each token, in bounded memory. Shapes: F latents, N entries, P pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TOKEN_BITS = 32
"""A pair is the number ``latent << 32 | token``."""
PENDING = 1 << 20
"""Firings that are kept as they came before they are counted."""


class Pairs(NamedTuple):
    """What was counted, by latent and then by token."""

    latents: Tensor
    """int64 ``[P]``, ascending."""
    tokens: Tensor
    """int64 ``[P]``."""
    counts: Tensor
    """int64 ``[P]``."""


class PairCounts:
    """Exact counts of (latent, token) pairs of as many latents as fit.

    Latents stand in an order drawn once. While the pairs of the first F / 2^h of them are more than allowed,
    h grows and the others are forgotten. The pairs of some latents only become more with data, so the h that
    is reached, and what is counted, depend on the data alone and not on batches or their order.

    Args:
        n_latents: F.
        max_pairs: how many are kept at most, unless one latent alone has more.
    """

    def __init__(self, n_latents: int, max_pairs: int) -> None:
        self.n_latents, self.max_pairs = n_latents, max_pairs
        order = torch.randperm(n_latents, generator=torch.Generator().manual_seed(0))
        self._place_F = order.argsort()
        self.n_counted = n_latents
        """How many latents are counted still."""
        self._keys = self._counts = torch.zeros(0, dtype=torch.int64)
        self._pending: list[Tensor] = []

    @property
    def counted_F(self) -> Tensor:
        """Bool ``[F]``: the latents that are."""
        return self._place_F < self.n_counted

    def add(self, latents_N: Tensor, tokens_N: Tensor) -> None:
        """Count firings, int64 on the CPU."""
        kept = self.counted_F[latents_N]
        self._pending.append(latents_N[kept] << TOKEN_BITS | tokens_N[kept])
        if sum(map(len, self._pending)) >= PENDING:
            self._count()

    def merge(self, other: PairCounts) -> None:
        """Add the counts of another one of the same latents."""
        other._count()
        self._count()
        self.n_counted = min(self.n_counted, other.n_counted)
        self._total(other._keys, other._counts)

    def pairs(self) -> Pairs:
        """Of the latents in ``counted_F``."""
        self._count()
        return Pairs(self._keys >> TOKEN_BITS, self._keys & ((1 << TOKEN_BITS) - 1), self._counts)

    def _count(self) -> None:
        if self._pending:
            keys, counts = torch.cat(self._pending).unique(return_counts=True)
            self._pending = []
            self._total(keys, counts)

    def _total(self, keys: Tensor, counts: Tensor) -> None:
        """Add counts, and forget latents until all fits."""
        both, place = torch.cat([self._keys, keys]).unique(return_inverse=True)
        total = torch.zeros_like(both)
        self._keys = both
        self._counts = total.index_add_(0, place, torch.cat([self._counts, counts]))
        self._forget()
        while len(self._keys) > self.max_pairs and self.n_counted > 1:
            self.n_counted = -(-self.n_counted // 2)
            self._forget()

    def _forget(self) -> None:
        """Drop the pairs of latents that are not counted any more."""
        kept = self.counted_F[self._keys >> TOKEN_BITS]
        self._keys, self._counts = self._keys[kept], self._counts[kept]
