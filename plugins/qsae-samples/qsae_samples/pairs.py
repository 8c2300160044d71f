"""Which latents fire together, from sparse counts over evenly drawn tokens. Shapes: N pairs, F latents."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.measuring import KeyCounts, pairs_of_tokens
from qsae_samples.kept import ordered, rank_in_run

LEAST = 2
"""Tokens on which two latents have to fire together to be named."""


class Pairs:
    """Tokens on which two latents both fire, for pairs that do."""

    def __init__(self, n_latents: int) -> None:
        self.n_latents = n_latents
        self.count = torch.zeros(n_latents, dtype=torch.int64)
        self.together = KeyCounts()

    def update(self, row: Tensor, latent: Tensor) -> None:
        """Take tokens into account: the latents of each, rows ascending."""
        self.count += torch.bincount(latent, minlength=self.n_latents)
        for one, other in pairs_of_tokens(row, latent):
            self.together.add(one * self.n_latents + other)

    def merge(self, other: Pairs) -> None:
        """Take into account what another one has counted."""
        self.count += other.count
        self.together.merge(other.together)

    def strongest(self, n: int) -> tuple[Tensor, Tensor]:
        """int32 ``[F, n]``, -1 where there are no more; float32 ``[F, n]``: of tokens on which one of the two
        fires, the share on which both do (Jaccard), 0 likewise."""
        enough = self.together.counts >= LEAST
        key, both = self.together.keys[enough], self.together.counts[enough]
        one, other = key // self.n_latents, key % self.n_latents
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
