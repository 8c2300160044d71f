"""How often each latent fired on each token, in bounded memory. Shapes: F latents, N entries, P pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.measuring import KeyCounts

TOKEN_BITS = 32
"""A pair is the number ``latent << 32 | token``."""


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
        self._pairs = KeyCounts(lambda keys: self.counted_F[keys >> TOKEN_BITS])

    @property
    def counted_F(self) -> Tensor:
        """Bool ``[F]``: the latents that are."""
        return self._place_F < self.n_counted

    def add(self, latents_N: Tensor, tokens_N: Tensor) -> None:
        """Count firings, int64 on the CPU."""
        kept = self.counted_F[latents_N]
        self._pairs.add(latents_N[kept] << TOKEN_BITS | tokens_N[kept])
        self._shrink()

    def merge(self, other: PairCounts) -> None:
        """Add the counts of another one of the same latents."""
        self.n_counted = min(self.n_counted, other.n_counted)
        self._pairs.merge(other._pairs)
        self._shrink()

    def pairs(self) -> Pairs:
        """Of the latents in ``counted_F``."""
        self._pairs.settle()
        self._shrink()
        keys, counts = self._pairs.keys, self._pairs.counts
        return Pairs(keys >> TOKEN_BITS, keys & ((1 << TOKEN_BITS) - 1), counts)

    def _shrink(self) -> None:
        """Forget latents until all fits."""
        while len(self._pairs) > self.max_pairs and self.n_counted > 1:
            self.n_counted = -(-self.n_counted // 2)
            self._pairs.forget()
