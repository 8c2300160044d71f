"""The TopK SAE (Gao et al., 2024). Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

from qsae_core.coders import LinearCoder
from qsae_core.contracts import Batch, LossOutput
from qsae_core.kernels import squared_error


class TopKSAE(LinearCoder):
    """f = top_k(ReLU(W_enc (x - b_dec) + b_enc)); x_hat = f W_dec + b_dec; rows of W_dec have unit norm."""

    splits_latents = True
    unit_norm_rows = True

    def loss(self, batch: Batch) -> LossOutput:
        """``||x - x_hat||^2 + alpha V AuxK``: AuxK is relative to the residual's variance, V the data's."""
        x, codes, x_hat, W_enc, W_dec = self.training_pass(batch)
        mse = squared_error(x, x_hat)
        terms = {"mse": mse} | self.penalty(codes, W_dec) | self.auxk(x, x_hat, W_enc, W_dec)
        return LossOutput(terms, codes, x, x_hat)
