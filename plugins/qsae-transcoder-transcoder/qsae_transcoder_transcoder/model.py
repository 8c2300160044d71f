"""The transcoder (Dunefsky et al., 2024; Paulo et al., 2025).

Shapes: B tokens, D width of the source, E width of the target, F latents.
"""

from __future__ import annotations

import pathlib

from qsae_core.coders import TRANSCODER_BIAS_RATE, LinearCoder, begin_at_tokens
from qsae_core.conformance import Case
from qsae_core.contracts import Batch, LossOutput
from qsae_core.kernels import squared_error


class SparseTranscoder(LinearCoder):
    """f = rule(ReLU(W_enc x + b_enc)); y_hat = f W_dec + b_dec [+ W_skip x]; rows of W_dec have unit norm.

    Source and target are normalised each by its own statistics.
    """

    is_autoencoder = False
    subtract_b_dec = False
    splits_latents = True
    unit_norm_rows = True
    bias_rate = TRANSCODER_BIAS_RATE

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Without and with a skip connection; without AuxK."""
        return [Case(), Case({"skip": True}), Case({"skip": True, "auxk_coefficient": 0, "restart": False})]

    def begin_rows(self, sample: Batch) -> None:
        """Each latent begins at a token of the sample."""
        begin_at_tokens(self, sample)

    def loss(self, batch: Batch) -> LossOutput:
        """``||y - y_hat||^2 + alpha V AuxK`` in the target's space, and the rule's penalty if it has one."""
        x, codes, y_hat, W_enc, W_dec = self.training_pass(batch)
        y = self.norm_out(batch.y)
        terms = {"mse": squared_error(y, y_hat)} | self.penalty(codes, W_dec)
        terms |= self.auxk(x, y_hat, W_enc, W_dec, target_BE=y)
        return LossOutput(terms, codes, y, y_hat)
