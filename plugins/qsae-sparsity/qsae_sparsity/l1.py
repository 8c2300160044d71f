"""Sparsity rule ``l1``: a penalty on activations. Shapes: B tokens, F latents, N entries of the codes."""

from __future__ import annotations

from torch import Tensor

from qsae_core.contracts import Kept, SparseCodes, SparsityRule
from qsae_core.kernels import nonzero_codes, partners
from qsae_sparsity import L1Config
from qsae_sparsity.magnitudes import magnitudes


class L1(SparsityRule):
    """Every latent that is not exactly zero stays, at the price ``coefficient * sum_j |f_j| ||w_j||``.

    The price is a sum over latents (not a mean, which would depend on the width) and a mean over tokens.
    With the norms in it, activations cannot shrink while atoms grow (Conerly et al., 2024).
    """

    splits = True
    config: L1Config

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        """All non-zero latents; importance plays no part."""
        return nonzero_codes(latents_BF)

    def penalty(self, codes: SparseCodes, atom_norms_F: Tensor) -> Tensor:
        """A scalar, differentiable in the codes' values and in the norms; 0 for an empty batch."""
        weighted_N = magnitudes(codes) * atom_norms_F.index_select(0, codes.indices)
        total = partners().total(weighted_N.sum())
        return self.config.coefficient * total / max(codes.batch_size, 1)

    def kept(self) -> Kept:
        """Everything."""
        return Kept()
