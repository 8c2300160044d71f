"""Sparsity rule ``none``: what the activation leaves. Shapes: B tokens, F latents."""

from __future__ import annotations

from torch import Tensor

from qsae_core.contracts import Kept, SparseCodes, SparsityRule
from qsae_core.kernels import nonzero_codes


class NoRule(SparsityRule):
    """Every latent that is not exactly zero stays, so that codes vary in length; there is no penalty."""

    splits = True

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        """All non-zero latents; importance plays no part."""
        return nonzero_codes(latents_BF)

    def kept(self) -> Kept:
        """Everything."""
        return Kept()
