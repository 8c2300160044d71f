"""The BatchTopK SAE (Bussmann et al., 2024). Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

from qsae_core.coders import LinearCoder
from qsae_core.contracts import Batch, LossOutput
from qsae_core.kernels import squared_error


class BatchTopKSAE(LinearCoder):
    """f = the k B largest ReLU(W_enc (x - b_dec) + b_enc) of a batch; rows of W_dec have unit norm."""

    splits_latents = True
    unit_norm_rows = True

    def loss(self, batch: Batch) -> LossOutput:
        """``||x - x_hat||^2 + alpha AuxK``."""
        x, codes, x_hat, W_enc, W_dec = self.training_pass(batch)
        terms = {"mse": squared_error(x, x_hat)} | self.penalty(codes, W_dec)
        terms |= self.auxk(x, x_hat, W_enc, W_dec)
        return LossOutput(terms, codes, x, x_hat)
