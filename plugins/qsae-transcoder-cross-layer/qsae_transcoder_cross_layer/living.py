"""What keeps the latents of each layer alive. Shapes: D width in, E width of a row of the layer's decoder, F
latents of a layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qsae_core.coders import DeadLatents, Restarts, restart
from qsae_core.contracts import Budget


class LivingLayer(nn.Module):
    """Counts the latents of one layer and lets silent ones begin anew. Saved with checkpoints, not with
    artifacts."""

    training_only = True

    def __init__(self, n_latents: int) -> None:
        super().__init__()
        self.dead = DeadLatents(n_latents)
        self.restarts = Restarts()

    def begin(self, dead_after: int | str, budget: Budget) -> None:
        """Scale the dead threshold and the restarts to the run's length."""
        self.dead.set_threshold(dead_after, budget.tokens)
        self.restarts.begin(budget)

    def restart(
        self, layer: int, W_enc_FD: Tensor, W_dec_FE: Tensor, bias_F: Tensor
    ) -> tuple[Mapping[str, Tensor], Tensor] | None:
        """Let the latents that were found begin anew: the rows of both matrices by their names, and bool
        ``[F]``, which latents these are; None where it is not their turn."""
        found = self.restarts.take()
        if found is None:
            return None
        entries = restart(found, W_enc_FD, W_dec_FE, bias_F, self.dead)
        rows = {f"{name}.{layer}.weight": entries[f"{name}.weight"] for name in ("W_enc", "W_dec")}
        return rows, entries["b_enc"]


def share_of_dead(layers: list[LivingLayer]) -> float:
    """Dead latents of all layers as a share of all."""
    return torch.cat([layer.dead.mask() for layer in layers]).double().mean().item()
