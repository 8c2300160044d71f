"""Activation ``step``. Shapes: B tokens, F latents, N gathered entries."""

from __future__ import annotations

from torch import Tensor

from qsae_core.coders import step, step_candidates
from qsae_core.contracts import Activation


class Step(Activation):
    """``f = 1[s >= 1/2]`` with ``s = sigma(z)``: a bit, whose gradient is that of s (straight through:
    Bengio et al., 2013). Rules rank latents by z, since bits would tie."""

    straight_through = True
    has_gates = True

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """``[B, F]`` or ``[N]`` pre-activations -> 1 where z >= 0, else 0."""
        return step(pre_acts)

    def candidates(self, pre_BF: Tensor) -> Tensor:
        """Ranks of bits, which would tie (``qsae_core.coders.steps``)."""
        return step_candidates(pre_BF, self.training)

    def gates(self, pre_N: Tensor, latent_N: Tensor) -> Tensor:
        """The bits, with the gradient of s."""
        return self(pre_N, latent_N)
