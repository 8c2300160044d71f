"""Sparsity rule ``tanh``: a penalty that saturates. Shapes: B tokens, F latents, N entries of the codes."""

from __future__ import annotations

from torch import Tensor

from qsae_core.contracts import Kept, SparseCodes, SparsityRule
from qsae_core.kernels import nonzero_codes, partners
from qsae_sparsity import TanhConfig
from qsae_sparsity.magnitudes import magnitudes


class Tanh(SparsityRule):
    """Every latent that is not exactly zero stays, at a price: ``coefficient * sum_j tanh(c |f_j| ||w_j||)``,
    a sum over latents and a mean over tokens.

    A latent that is far above ``1 / c`` costs ``coefficient`` however large it is, so that it is not shrunk
    as by ``l1``; one that is small is pressed to zero (Ameisen, Lindsey et al., 2025).
    """

    splits = True
    config: TanhConfig

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        """All non-zero latents; importance plays no part."""
        return nonzero_codes(latents_BF)

    def penalty(self, codes: SparseCodes, atom_norms_F: Tensor) -> Tensor:
        """A scalar, differentiable in the codes' values and in the norms; 0 for an empty batch."""
        weighted_N = magnitudes(codes) * atom_norms_F.index_select(0, codes.indices)
        total = partners().total((self.config.c * weighted_N).tanh().sum())
        return self.config.coefficient * total / max(codes.batch_size, 1)

    def kept(self) -> Kept:
        """Everything."""
        return Kept()
