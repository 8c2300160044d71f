"""What keeps the latents of each layer alive.

Shapes: B tokens, L layers, D width in, E width of a row of the layer's decoder, F latents of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn

from qsae_core.coders import AUXK_EVERY_STEPS, DeadLatents, LossUnits, Restarts, auxk_loss, restart
from qsae_core.contracts import Budget, CoderShape, Parts
from qsae_core.kernels import Rows
from qsae_transcoder_cross_layer import CrossLayerConfig
from qsae_transcoder_cross_layer.layers import LayerMatrices


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


class LivingLayers(LayerMatrices):
    """The part of a cross-layer transcoder that looks after latents which do not fire.

    Of each layer: silent latents begin anew at the errors of tokens in what they write into, dead ones get
    AuxK for that error. ``units`` says what a coefficient is beside it.
    """

    term_periods = MappingProxyType({"auxk": AUXK_EVERY_STEPS})

    def __init__(self, config: CrossLayerConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        self.living = nn.ModuleList(LivingLayer(self.ends[0]) for _ in self.ends)
        self.units = LossUnits()
        self._restarted: dict[str, Tensor] = {}

    def begin_training(self, budget: Budget) -> None:
        """Scale the dead threshold and the restarts to the run's length."""
        for living in self._living:
            living.begin(self.config.dead_after_tokens, budget)

    @property
    def restarts_latents(self) -> bool:
        """Whether silent latents begin anew: where that is on, and no decoder is frozen."""
        return self.config.restart and not any(matrix.frozen for matrix in self._decoders)

    def after_step(self, step: int) -> None:
        """Let silent latents begin anew where it is their turn."""
        self._restarted, chosen = {}, torch.zeros_like(self.b_enc, dtype=torch.bool)
        per_layer = zip(self._living, self._encoders, self._decoders, self._b_enc, strict=True)
        for layer, (living, enc, dec, bias) in enumerate(per_layer):
            found = living.restart(layer, enc.master, dec.master, bias)
            if found is not None:
                rows, chosen[self._range(layer)] = found
                self._restarted |= {**rows, "b_enc": chosen}

    def restarted(self) -> Mapping[str, Tensor]:
        """The rows of latents that began anew after the last step."""
        return self._restarted

    def dead_share(self) -> float:
        """Of the latents of all layers."""
        return torch.cat([layer.dead.mask() for layer in self._living]).double().mean().item()

    @property
    def error_unit(self) -> Tensor:
        """What a normalised error of 1 in one layer is in this loss: every coefficient is of that."""
        return self.units.variance / self.shape.layers_out

    def auxk(
        self, x: Sequence[Tensor], y: Tensor, y_hat: Tensor, W_enc: Sequence[Rows], W_dec: Sequence[Rows]
    ) -> dict[str, Tensor]:
        """AuxK of each layer's dead latents, for the error in what they write into, while training and at
        its turn; or nothing. Also looks for where silent latents could begin anew."""
        if not self.training:
            return {}
        terms = []
        k_aux = self.config.k_aux or max(1, self.shape.d_out // 2)
        per_layer = zip(x, W_enc, self._b_enc, W_dec, self._activations, strict=True)
        for living, (x_BD, enc, bias, dec, activation) in zip(self._living, per_layer, strict=True):
            own = slice(y.shape[1] - dec.shape[1], None)
            if self.restarts_latents:
                living.restarts.look(
                    y[:, own], y_hat[:, own], living.dead, x_BD, centred=self.norm_in.centres
                )
            turn = living.dead.turn() if self.config.auxk_coefficient else None
            if turn is not None:
                error, dead = y[turn, own] - y_hat[turn, own], living.dead.mask()
                terms.append(auxk_loss(x_BD[turn], error, enc, bias, dec, dead, activation, k_aux))
        weight = AUXK_EVERY_STEPS * self.config.auxk_coefficient * self.error_unit
        return {"auxk": weight * torch.stack(terms).sum()} if terms else {}

    @property
    def _living(self) -> list[LivingLayer]:
        return [cast(LivingLayer, layer) for layer in self.living]
