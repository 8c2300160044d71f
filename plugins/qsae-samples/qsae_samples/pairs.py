"""Which latents fire together, from sparse counts over evenly drawn tokens. Shapes: N pairs, F latents."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_samples.kept import ordered, rank_in_run

LEAST = 2
"""Tokens on which two latents have to fire together to be named."""
_AT_ONCE = 1 << 22
"""Pairs that are made at once."""


class Pairs:
    """Tokens on which two latents both fire, for pairs that do."""

    def __init__(self, n_latents: int) -> None:
        self.n_latents = n_latents
        self.count = torch.zeros(n_latents, dtype=torch.int64)
        self.key, self.together = (torch.zeros(0, dtype=torch.int64) for _ in range(2))

    def update(self, row: Tensor, latent: Tensor) -> None:
        """Take tokens into account: the latents of each, rows ascending."""
        self.count += torch.bincount(latent, minlength=self.n_latents)
        length = torch.unique_consecutive(row, return_counts=True)[1]
        start = length.cumsum(0) - length
        for size in length.unique().tolist():  # tokens with as many active latents each
            starts = start[length == size]
            one, other = torch.triu_indices(size, size, 1)
            for some in starts.split(max(1, _AT_ONCE // max(1, len(one)))):
                both = latent[some[:, None] + torch.arange(size)].sort(1).values
                key = (both[:, one] * self.n_latents + both[:, other]).reshape(-1)
                self._add(*key.unique(return_counts=True))

    def _add(self, key: Tensor, together: Tensor) -> None:
        key, where = torch.cat([self.key, key]).unique(return_inverse=True)
        counts = torch.zeros(len(key), dtype=torch.int64)
        self.together = counts.index_add_(0, where, torch.cat([self.together, together]))
        self.key = key

    def merge(self, other: Pairs) -> None:
        """Take into account what another one has counted."""
        self.count += other.count
        self._add(other.key, other.together)

    def strongest(self, n: int) -> tuple[Tensor, Tensor]:
        """int32 ``[F, n]``, -1 where there are no more; float32 ``[F, n]``: of tokens on which one of the two
        fires, the share on which both do (Jaccard), 0 likewise."""
        enough = self.together >= LEAST
        one, other, both = (
            self.key[enough] // self.n_latents,
            self.key[enough] % self.n_latents,
            self.together[enough],
        )
        share = both / (self.count[one] + self.count[other] - both)
        latent, partner, share = torch.cat([one, other]), torch.cat([other, one]), share.repeat(2)
        order = ordered(partner, -share, latent)
        order = order[(rank := rank_in_run(latent[order])) < n]
        rank = rank[rank < n]
        partners = torch.full((self.n_latents, n), -1, dtype=torch.int32)
        shares = torch.zeros(self.n_latents, n)
        partners[latent[order], rank] = partner[order].to(torch.int32)
        shares[latent[order], rank] = share[order].to(torch.float32)
        return partners, shares
