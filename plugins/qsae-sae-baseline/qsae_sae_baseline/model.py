"""The plain TopK SAE. Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

from qsae_core.coders import LinearCoder
from qsae_core.contracts import Batch, LossOutput
from qsae_core.kernels import squared_error


class BaselineSAE(LinearCoder):
    """f = top_k(ReLU(W_enc x + b_enc)); x_hat = f W_dec + b_dec; rows of W_dec have unit norm."""

    splits_latents = True
    unit_norm_rows = True
    subtract_b_dec = False

    def loss(self, batch: Batch) -> LossOutput:
        """``||x - x_hat||^2``, and the sparsity rule's penalty where it has one."""
        x, codes, x_hat, _, W_dec = self.training_pass(batch)
        terms = {"mse": squared_error(x, x_hat)} | self.penalty(codes, W_dec)
        return LossOutput(terms, codes, x, x_hat)
