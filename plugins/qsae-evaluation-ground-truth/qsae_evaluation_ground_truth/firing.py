"""Whether latents fire where their features are active, in counts that add up.

Shapes: B tokens, A features, F latents, P pairs, N entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import SparseCodes
from qsae_core.measuring import Matching


class Firing:
    """Counts over tokens of the pairs of a matching, and the activations where both are active; float64.

    Args:
        matching: rows are features, columns latents.
        n_features, n_latents: A and F.
    """

    def __init__(self, matching: Matching, n_features: int, n_latents: int) -> None:
        self.matching, self.n_latents = matching, n_latents
        self._partner_A = torch.full((n_features,), -1, dtype=torch.int64)
        self._partner_A[matching.rows] = matching.columns
        self.tokens = 0
        self.of_feature = torch.zeros(n_features, dtype=torch.float64)
        self.of_latent, self.of_both, self.latent_sum, self.feature_sum = (
            torch.zeros(n_latents, dtype=torch.float64) for _ in range(4)
        )

    def add(self, truth: SparseCodes, codes: SparseCodes) -> None:
        """Take into account the coefficients and the codes of the same tokens, both on the CPU."""
        self.tokens += codes.batch_size
        self.of_feature += truth.fired()
        self.of_latent += codes.fired()
        active = truth.active & (self._partner_A[truth.indices.long()] >= 0)
        wanted = truth.rows[active] * self.n_latents + self._partner_A[truth.indices[active].long()]
        coefficients = truth.values[active].double()
        keys = codes.rows[codes.active] * self.n_latents + codes.indices[codes.active]
        keys, order = keys.sort()
        activations = codes.values[codes.active].double()[order]
        place = torch.searchsorted(keys, wanted).clamp_max(max(len(keys) - 1, 0))
        both = keys[place] == wanted if len(keys) else torch.zeros_like(wanted, dtype=torch.bool)
        latents = wanted[both] % self.n_latents
        self.of_both += torch.bincount(latents, minlength=self.n_latents)
        self.latent_sum.index_add_(0, latents, activations[place[both]])
        self.feature_sum.index_add_(0, latents, coefficients[both])

    def merge(self, other: Firing) -> None:
        """Add the counts of the same pairs over other tokens."""
        self.tokens += other.tokens
        for name in ("of_feature", "of_latent", "of_both", "latent_sum", "feature_sum"):
            getattr(self, name).add_(getattr(other, name))

    def columns(self) -> dict[str, Tensor]:
        """float64 ``[P]`` each, NaN where it is not defined: ``precision`` and ``recall`` of the latent's
        firing as a sign of the feature's, ``f1``, and in ``*_by_chance`` what these are when both fire as
        often, independently. ``f1`` is that of features that were active."""
        fired, active = self.of_latent[self.matching.columns], self.of_feature[self.matching.rows]
        both, seen = self.of_both[self.matching.columns], active > 0
        return {
            "precision": both / fired,
            "recall": both / active,
            "f1": (2 * both / (fired + active)).where(seen, torch.nan),
            "precision_by_chance": (active / self.tokens).where(fired > 0, torch.nan),
            "recall_by_chance": (fired / self.tokens).where(seen, torch.nan),
            "f1_by_chance": (2 * fired * active / (fired + active) / self.tokens).where(seen, torch.nan),
        }
