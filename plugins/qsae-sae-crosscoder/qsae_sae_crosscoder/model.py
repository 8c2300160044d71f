"""The crosscoder (Lindsey et al., 2024). Shapes: B tokens, L layers, D model width, F latents.

``W_enc`` and ``W_dec`` are matrices ``[F, L D]``: a row is a latent's L encoder or decoder vectors one after
another, so that a sum over layers is one product.
"""

from __future__ import annotations

import pathlib

from torch import Tensor

from qsae_core.coders import LinearCoder
from qsae_core.conformance import Case
from qsae_core.contracts import Batch, LossOutput
from qsae_core.kernels import Matrix, as_rows, squared_error


class Crosscoder(LinearCoder):
    """f = rule(ReLU(sum_l W_enc^l (x_l - b_dec^l) + b_enc)); x_hat_l = f W_dec^l + b_dec^l.

    Every layer has a mean and a scale of its own, so that all weigh the same. The loss is ``sum_l ||x_l -
    x_hat_l||^2``, a rule's penalty ``sum_j f_j sum_l ||w_j^l||``, and AuxK. Only the joint norm of a latent's
    L decoder vectors is fixed, to 1: how it is spread over layers is learned.
    """

    reads_layers = True
    normalizes_layers = True
    unit_norm_rows = True

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Two and three layers."""
        return [Case({}, {"layers_in": n, "layers_out": n}) for n in (3, 2)]

    def loss(self, batch: Batch) -> LossOutput:
        """``sum_l ||x_l - x_hat_l||^2``, the rule's penalty and AuxK, in the normalised space."""
        x, codes, x_hat, W_enc, W_dec = self.training_pass(batch)
        terms = {"mse": squared_error(x, x_hat)}
        terms |= self.penalty(codes, W_dec) | self.auxk(x, x_hat, W_enc, W_dec)
        return LossOutput(terms, codes, self.norm_out.by_layer(x), self.norm_out.by_layer(x_hat))

    def priced_norms(self, W_dec_FE: Matrix) -> Tensor:
        """``[F]``: ``sum_l ||w_j^l||``."""
        return self.norm_out.by_layer(as_rows(W_dec_FE).dense()).norm(dim=2).sum(1)
