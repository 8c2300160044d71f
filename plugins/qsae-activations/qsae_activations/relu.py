"""Activation ``relu``. Shapes: B tokens, F latents, N gathered entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import Activation, Pointwise


class ReLU(Activation):
    """f = max(z, 0), with gradient 0 where z <= 0."""

    keeps_order = True

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """``[B, F]`` or ``[N]`` pre-activations -> latents of the same shape."""
        return torch.relu(pre_acts)

    def pointwise(self) -> Pointwise:
        """``relu``."""
        return Pointwise("relu")
