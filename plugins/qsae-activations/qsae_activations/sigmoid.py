"""Activation ``sigmoid``. Shapes: B tokens, F latents, N gathered entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import Activation


class Sigmoid(Activation):
    """f = 1 / (1 + exp(-z)), between 0 and 1 and never exactly 0 for ordinary z."""

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """``[B, F]`` or ``[N]`` pre-activations -> latents of the same shape."""
        return torch.sigmoid(pre_acts)
