"""Sparsity rule ``l0``: a price on the number of active latents. Shapes: B tokens, F latents."""

from __future__ import annotations

from torch import Tensor

from qsae_core.contracts import Kept, SparseCodes, SparsityRule
from qsae_core.kernels import nonzero_codes, partners, processes
from qsae_sparsity import L0Config

AUTO = 0.002
"""The automatic coefficient without a target: the share of the variance that a latent has to explain."""
AUTO_OF_TARGET = 10 * AUTO
"""The automatic coefficient where there is a target, as a multiple of it."""


class L0(SparsityRule):
    """Every latent that is not exactly zero stays, at a price on how many there are.

    The price is ``coefficient * L0``, or ``coefficient * (L0 / target - 1)^2`` where there is a target, with
    L0 the mean over tokens of the number of active latents (Rajamanoharan et al., 2024). Its gradient is that
    of the activation's gates.

    At ``(1 + d) target`` one more latent costs ``2 d coefficient / target``, so the automatic coefficient is
    in proportion to the target: at a tenth above it the price is twice that of no target.
    """

    needs_gates = True
    splits = True
    counts = "target"
    config: L0Config

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        """All non-zero candidates; importance plays no part."""
        return nonzero_codes(latents_BF)

    def penalty(self, codes: SparseCodes, atom_norms_F: Tensor) -> Tensor:
        """A scalar, differentiable in the codes' gates; norms play no part."""
        assert codes.gates is not None
        l0 = partners().total(codes.gates.sum()) / max(codes.batch_size, 1)
        target = self.config.target
        given = self.config.coefficient
        if target is None:
            return (AUTO if given == "auto" else given) * l0
        l0 = processes().mean(l0)
        return (AUTO_OF_TARGET * target if given == "auto" else given) * (l0 / target - 1).square()

    def kept(self) -> Kept:
        """Everything."""
        return Kept()
