"""The matryoshka SAE (Bussmann et al., 2025). Shapes: B tokens, D model width, F latents, G groups."""

from __future__ import annotations

import pathlib

from qsae_core.coders import NestedCoder, fvu_by_level
from qsae_core.conformance import Case
from qsae_core.contracts import Batch, LossOutput


class MatryoshkaSAE(NestedCoder):
    """f = rule(ReLU(W_enc (x - b_dec) + b_enc)) over all latents; x_hat_g = f_{<=P_g} W_dec_{<=P_g} + b_dec.

    The loss is the mean over g of ``||x - x_hat_g||^2``, and AuxK on the whole. Rows have unit norm.
    """

    unit_norm_rows = True

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Equal groups, groups of one's own, and a single one."""
        return [
            Case(),
            Case({"group_sizes": [8, 40, 16]}),
            Case({"group_sizes": [64], "auxk_coefficient": 0}),
        ]

    def loss(self, batch: Batch) -> LossOutput:
        """``1/G sum_g ||x - x_hat_g||^2 + alpha AuxK``, and the rule's penalty where it has one."""
        W_enc, W_dec = self.W_enc.rows(), self.W_dec.rows()
        x = self.norm_in(batch.x)
        codes = self.encode_normalized(x, W_enc, W_dec)
        errors_G, x_hat = self.prefix_errors(x, codes, W_dec)
        self.count_firing(codes)
        terms = {"mse": errors_G.mean()}
        terms |= self.penalty(codes, W_dec) | self.auxk(x, x_hat, W_enc, W_dec)
        return LossOutput(terms, codes, x, x_hat, fvu_by_level(errors_G, x))
