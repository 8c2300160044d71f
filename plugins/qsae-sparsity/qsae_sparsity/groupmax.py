"""Sparsity rule ``groupmax``: one latent of each group. Shapes: B tokens, F latents, G groups."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import SparseCodes, SparsityRule
from qsae_core.errors import ConfigError
from qsae_sparsity import GroupMaxConfig


class GroupMax(SparsityRule):
    """The latents are k groups of neighbours, and each group's largest ``latent * importance`` stays.

    Exactly k entries for every token, found without a search over all latents. Where no latent of a group is
    positive after a ReLU its entry is 0, and does not count as active.

    Raises:
        ConfigError: if n_latents does not divide into k groups.
    """

    selects_largest = False
    counts = "k"
    config: GroupMaxConfig

    def __init__(self, config: GroupMaxConfig, n_latents: int) -> None:
        super().__init__(config, n_latents)
        if n_latents % config.k:
            raise ConfigError(
                f"{n_latents} latents do not divide into k = {config.k} groups of equal size",
                where="k",
                allowed=f"a divisor of {n_latents}",
                next="give another --sparsity.k, or another --n-latents",
            )
        self.fixed_k = config.k

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        """The codes of the largest ``latent * importance`` of each group."""
        n_groups = self.config.k
        size = self.n_latents // n_groups
        ranking_BF = latents_BF if importance_F is None else latents_BF * importance_F
        place_BG = ranking_BF.view(-1, n_groups, size).argmax(dim=2)
        starts_G = torch.arange(0, self.n_latents, size, device=latents_BF.device)
        indices_BG = place_BG + starts_G
        return SparseCodes.from_top_k(
            indices_BG.to(torch.int32), latents_BF.gather(1, indices_BG), self.n_latents
        )
