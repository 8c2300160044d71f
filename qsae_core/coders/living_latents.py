"""What keeps latents alive: counting, restarts and AuxK, and what a coefficient is beside the error.

Shapes: B tokens, D width of the input, E width of the output, F latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from torch import Tensor, nn

from qsae_core.coder_options import AuxKConfig, CoderConfig, RestartConfig
from qsae_core.coders.dead_latents import EVERY_STEPS, DeadLatents, auxk_loss
from qsae_core.coders.loss_units import LossUnits
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.quantized_matrix import QuantizedMatrix
from qsae_core.coders.restarts import Restarts, restart
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.coder import Budget, CoderShape, Parts
from qsae_core.contracts.codes import SparseCodes
from qsae_core.kernels import Matrix


class LivingLatents(MatrixCoder):
    """The part of a LinearCoder that looks after latents which do not fire.

    Silent latents begin anew at the errors of badly reconstructed tokens (``Restarts``), where the config is
    a ``RestartConfig``; those that are dead all the same get AuxK, where it is an ``AuxKConfig``, on an
    eighth of the tokens at every eighth step, so that it costs a few percent of a run.
    """

    W_enc: QuantizedMatrix
    W_dec: QuantizedMatrix
    b_enc: nn.Parameter
    activation: Activation
    dead: DeadLatents
    units: LossUnits
    term_periods = MappingProxyType({"auxk": EVERY_STEPS})
    error_weight: float | None = 1.0
    """What the squared error is multiplied by in the loss; None: the error is relative to begin with."""

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        self.restarts = Restarts()
        self._restarted: Mapping[str, Tensor] = {}

    @property
    def encoder_offset(self) -> Tensor | None:
        """``[D]``: what is subtracted from inputs before the encoder; None where nothing is."""
        raise NotImplementedError

    def count_firing(self, codes: SparseCodes) -> None:
        """Take a batch into the dead counters; evaluation mode counts nothing."""
        if self.training:
            self.dead.update(codes)

    def begin_training(self, budget: Budget) -> None:
        """Scale the dead threshold and the restarts to the run's length."""
        self.dead.set_threshold(self.config.dead_after_tokens, budget.tokens)
        self.restarts.begin(budget)

    @property
    def restarts_latents(self) -> bool:
        """Whether silent latents begin anew: where that is on, and rows of both matrices are the masters'."""
        wanted = isinstance(self.config, RestartConfig) and self.config.restart
        return wanted and self.W_enc.is_plain and self.W_dec.is_plain and not self.W_dec.frozen

    def after_step(self, step: int) -> None:
        """Let silent latents begin anew where it is their turn."""
        found, self._restarted = self.restarts.take(), {}
        if found is not None:
            rows = self.W_enc.master, self.W_dec.master
            self._restarted = restart(found, *rows, self.b_enc, self.dead)

    def restarted(self) -> Mapping[str, Tensor]:
        """The rows of latents that began anew after the last step."""
        return self._restarted

    def dead_share(self) -> float:
        """Latents that have not fired for ``dead_after_tokens``, as a share of all."""
        return self.dead.share()

    @property
    def error_unit(self) -> Tensor | float:
        """What a normalised error of 1 is in this loss (``LossUnits``): every coefficient is of that."""
        return 1.0 if self.error_weight is None else self.error_weight * self.units.variance

    def auxk(
        self,
        x_BD: Tensor,
        x_hat_BE: Tensor,
        W_enc_FD: Matrix,
        W_dec_FE: Matrix,
        *,
        target_BE: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """AuxK (Gao et al., 2024) beside the normalised error, while training and at its turn; or nothing.
        Also looks for where silent latents could begin anew.

        For coders whose config is an ``AuxKConfig``.

        Args:
            x_BD: normalised inputs, a vector a token.
            x_hat_BE: reconstructions of the targets, with all that goes past the latents.
            target_BE: of a transcoder its normalised targets, those of several layers in one row; an SAE's
                are its inputs.
        """
        assert self.is_autoencoder == (target_BE is None)
        target = x_BD if target_BE is None else target_BE
        if self.training and self.restarts_latents:
            inputs = None if self.is_autoencoder else x_BD
            self.restarts.look(target, x_hat_BE, self.dead, inputs, centred=self.norm_in.centres)
        turn = self.auxk_turn()
        if turn is None:
            return {}
        loss = auxk_loss(
            x_BD[turn],
            target[turn] - x_hat_BE[turn],
            W_enc_FD,
            self.b_enc,
            W_dec_FE,
            self.dead.mask(),
            self.dead_activation,
            self.k_aux,
            self.encoder_offset,
        )
        return {"auxk": self.auxk_weight * loss}

    @property
    def dead_activation(self) -> Activation:
        """What makes latents of the pre-activations of dead ones in AuxK."""
        return self.activation

    def auxk_turn(self) -> slice | None:
        """The tokens of this batch on which AuxK is computed; None where it is not."""
        off = not self.training or cast(AuxKConfig, self.config).auxk_coefficient == 0
        return None if off else self.dead.turn()

    @property
    def auxk_weight(self) -> Tensor | float:
        """What AuxK is multiplied by at its turn: on average it weighs ``auxk_coefficient`` of the normalised
        error."""
        return EVERY_STEPS * cast(AuxKConfig, self.config).auxk_coefficient * self.error_unit

    @property
    def k_aux(self) -> int:
        """Dead latents per token in AuxK."""
        return cast(AuxKConfig, self.config).k_aux or max(1, self.shape.d_out // 2)
