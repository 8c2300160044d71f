"""Correlation of the codes of matched latents, from sums that add up.

Shapes: B tokens, F latents, G latents of the other coder, P pairs, N entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import SparseCodes

CONSTANT = 1e-12
"""Of a latent's energy, below which its variance is rounding."""


class CodePairs:
    """Sums over tokens for pairs of latents of two coders, each latent in one pair at most; float64, on the
    CPU. Entries of codes alone are touched; all other values are 0, and count as such.

    Args:
        own_P, partner_P: int64, the latents of each pair.
        n_own, n_other: F and G.
    """

    def __init__(self, own_P: Tensor, partner_P: Tensor, n_own: int, n_other: int) -> None:
        self.own_P, self.partner_P, self.n_other = own_P, partner_P, n_other
        self._partner_F = torch.full((n_own,), -1, dtype=torch.int64)
        self._partner_F[own_P] = partner_P
        self.tokens = 0
        self.firings, self.own_sum, self.own_square = (torch.zeros(n_own).double() for _ in range(3))
        self.other_sum, self.other_square, self.product = (torch.zeros(n_other).double() for _ in range(3))

    def add(self, own: SparseCodes, other: SparseCodes) -> None:
        """Take into account the codes that both coders have for the same tokens, on the CPU."""
        self.tokens += own.batch_size
        self.firings += own.fired()
        values, others = own.values.double(), other.values.double()
        for sums, index, entries in (
            (self.own_sum, own.indices, values),
            (self.own_square, own.indices, values.square()),
            (self.other_sum, other.indices, others),
            (self.other_square, other.indices, others.square()),
        ):
            sums.index_add_(0, index.long(), entries)
        partner = self._partner_F[own.indices.long()]
        wanted = (own.rows * self.n_other + partner)[partner >= 0]
        keys, order = (other.rows * self.n_other + other.indices).sort()
        if not len(keys):
            return
        place = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
        both = keys[place] == wanted
        products = values[partner >= 0][both] * others[order[place[both]]]
        self.product.index_add_(0, wanted[both] % self.n_other, products)

    def merge(self, more: CodePairs) -> None:
        """Add the sums of the same pairs over other tokens."""
        self.tokens += more.tokens
        for name in ("firings", "own_sum", "own_square", "other_sum", "other_square", "product"):
            getattr(self, name).add_(getattr(more, name))

    def correlations(self, min_firings: int) -> Tensor:
        """float64 ``[P]``: Pearson's r of each pair over all tokens; NaN where its own latent fired less
        often than so, or one of the two has the same value on every token."""
        own = self.own_sum[self.own_P], self.own_square[self.own_P]
        other = self.other_sum[self.partner_P], self.other_square[self.partner_P]
        covariance = self.tokens * self.product[self.partner_P] - own[0] * other[0]
        spread = torch.ones_like(covariance)
        known = self.firings[self.own_P] >= min_firings
        for total, square in (own, other):
            variance = self.tokens * square - total.square()
            known = known & (variance > CONSTANT * self.tokens * square)
            spread = spread * variance.clamp_min(0).sqrt()
        return (covariance / spread).where(known, torch.nan)
