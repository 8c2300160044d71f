"""Activation ``identity``. Shapes: B tokens, F latents, N gathered entries."""

from __future__ import annotations

from torch import Tensor

from qsae_core.contracts import Activation, Pointwise


class Identity(Activation):
    """f = z; the very tensor is returned."""

    keeps_order = True

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """``[B, F]`` or ``[N]`` pre-activations -> the same."""
        return pre_acts

    def pointwise(self) -> Pointwise:
        """``identity``."""
        return Pointwise("identity")
