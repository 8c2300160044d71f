"""The ternary SAE. Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qsae_core.coders import LinearCoder, Normalization, normalize_rows_
from qsae_core.contracts import Batch, Budget, CoderShape, LossOutput, Parts, Quantizer
from qsae_core.errors import ConfigError
from qsae_core.kernels import squared_error
from qsae_sae_ternary import TernaryConfig
from qsae_sae_ternary.mask import ENDS_AFTER, LearnedMask


class TernarySAE(LinearCoder):
    """f = top_k(ReLU(W_enc (x - b_dec) + b_enc)); x_hat = f W_hat + b_dec; W_hat = quantize(W_dec).

    The masters W_dec keep unit norm: a row's scale is the quantizer's business, and without a fixed norm the
    masters drift, so that the same step of Adam flips ever fewer weights.

    With ``mask_density`` some masters are held at zero, and with them their trits. Which ones is learned as
    in RigL (Evci et al., 2020), from the gradient of all weights: sum_b delta_b f_b^T, handed straight
    through the quantizer.
    """

    config: TernaryConfig
    splits_latents = True
    unit_norm_rows = True

    def __init__(self, config: TernaryConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        density = config.mask_density
        self.mask = None if density is None else LearnedMask(self.W_dec.shape, density)
        self._steps = 1
        self._pull: Tensor | None = None
        if self.mask is not None and not _keeps_zeros(self.W_dec.quantizer):
            raise ConfigError(
                "the grid of the decoder's quantizer has no zero, which masked weights need",
                where="mask_density",
                allowed="a grid with a zero (ternary is one), or no quantizer",
                next="leave out mask_density, or choose --quantizer ste --grid ternary",
            )

    def loss(self, batch: Batch) -> LossOutput:
        """``||x - x_hat||^2`` through the quantized decoder, plus AuxK over dead latents."""
        x, codes, x_hat, W_enc, W_hat = self.training_pass(batch)
        mse = squared_error(x, x_hat)
        terms = {"mse": mse} | self.penalty(codes, W_hat) | self.auxk(x, x_hat, W_enc, W_hat)
        return LossOutput(terms, codes, x, x_hat)

    # --- the mask

    @torch.no_grad()
    def initialize(self, sample: Batch) -> None:
        """As a LinearCoder; with a mask, of the largest weights alone."""
        if self.mask is not None:
            self.mask.begin(self.W_dec.master)
            normalize_rows_(self.W_dec.master)
        super().initialize(sample)

    def begin_training(self, budget: Budget) -> None:
        """The mask is re-drawn until 75% of the run are over."""
        super().begin_training(budget)
        self._steps = budget.steps

    def before_step(self) -> None:
        """Take the gradient from masked weights; before a re-drawing, remember it first."""
        gradient = self.W_dec.master.grad
        if self.mask is None or gradient is None:
            return
        step = int(self.mask.step) + 1
        if step % self.config.mask_every == 0 and step < ENDS_AFTER * self._steps:
            self._pull = gradient.clone()
        gradient.mul_(self.mask.kept)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """As a LinearCoder; or re-draw the mask where it is due."""
        super().after_step(step)
        if self.mask is None:
            return
        self.mask.step.fill_(step)
        if self._pull is not None:
            share = self.mask.share_at(step, self._steps)
            self._restarted = {"W_dec.weight": self.mask.redraw(self.W_dec.master, self._pull, share)}
            normalize_rows_(self.W_dec.master)
            self._pull = None

    def rotated_parameters(self) -> Mapping[str, Normalization]:
        """As a LinearCoder; a masked decoder moves along the axes of its mask."""
        found = super().rotated_parameters()
        return found if self.mask is None else {n: norm for n, norm in found.items() if n != "W_dec.weight"}

    def refusal_of_parts(self) -> str | None:
        """As a LinearCoder; not with a mask."""
        return super().refusal_of_parts() if self.mask is None else "its mask (mask_density) is not divided"

    @property
    def restarts_latents(self) -> bool:
        """As of a LinearCoder; not with a mask, which says of each weight whether it may be there."""
        return self.mask is None and super().restarts_latents


def _keeps_zeros(quantizer: Quantizer) -> bool:
    """Whether a weight of zero stays zero; no grid that is not fixed promises that."""
    grid = quantizer.grid()
    return quantizer.is_identity if grid is None else bool((grid == 0).any())
