"""The matryoshka transcoder.

Shapes: B tokens, D width of the source, E width of the target, F latents, G groups.
"""

from __future__ import annotations

import pathlib

from qsae_core.coders import TRANSCODER_BIAS_RATE, NestedCoder, begin_at_tokens, fvu_by_level
from qsae_core.conformance import Case
from qsae_core.contracts import Batch, LossOutput


class MatryoshkaTranscoder(NestedCoder):
    """f = rule(ReLU(W_enc x + b_enc)); y_hat_g = f_{<=P_g} W_dec_{<=P_g} + b_dec [+ W_skip x].

    The rule goes over all latents. The loss is the mean over g of ``||y - y_hat_g||^2``, and AuxK on the
    whole. Rows have unit norm. Source and target are normalised each by its own statistics.
    """

    is_autoencoder = False
    subtract_b_dec = False
    unit_norm_rows = True
    bias_rate = TRANSCODER_BIAS_RATE

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """The usual groups without and with a skip connection, groups of one's own, and a single one."""
        return [
            Case({"n_latents": 128}),  # 8 of 128 latents are the first group: as many as the kit's k
            Case({"n_latents": 128, "skip": True}),
            Case({"group_sizes": [8, 40, 16], "skip": True}),
            Case({"group_sizes": [64], "auxk_coefficient": 0}),
        ]

    def begin_rows(self, sample: Batch) -> None:
        """Each latent begins at a token of the sample."""
        begin_at_tokens(self, sample)

    def loss(self, batch: Batch) -> LossOutput:
        """``1/G sum_g ||y - y_hat_g||^2 + alpha V AuxK``, and the rule's penalty where it has one."""
        W_enc, W_dec = self.W_enc.rows(), self.W_dec.rows()
        x, y = self.normalized(batch.x), self.norm_out(batch.y)
        codes = self.encode_normalized(x, W_enc, W_dec)
        errors_G, y_hat = self.prefix_errors(y, codes, W_dec, x_BD=x)
        self.count_firing(codes)
        terms = {"mse": errors_G.mean()} | self.penalty(codes, W_dec)
        terms |= self.auxk(x, y_hat, W_enc, W_dec, target_BE=y)
        return LossOutput(terms, codes, y, y_hat, fvu_by_level(errors_G, y))
