"""The plain TopK SAE. Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

from qsae_core.coder import LossOutput
from qsae_core.data import Batch
from qsae_core.kernels import squared_error
from qsae_core.linear_coder import LinearCoder


class BaselineSAE(LinearCoder):
    """f = top_k(ReLU(W_enc x + b_enc)); x_hat = f W_dec + b_dec; rows of W_dec have unit norm."""

    unit_norm_rows = True
    subtract_b_dec = False

    def loss(self, batch: Batch) -> LossOutput:
        """``||x - x_hat||^2``, and the sparsity rule's penalty where it has one."""
        W_enc, W_dec = self.W_enc.rows(), self.W_dec.rows()
        x = self.norm_in(batch.x)
        codes = self.encode_normalized(x, W_enc, W_dec)
        x_hat = self.decode_normalized(codes, W_dec)
        self.count_firing(codes)
        terms = {"mse": squared_error(x, x_hat)} | self.penalty(codes, W_dec)
        return LossOutput(terms, codes, x, x_hat)
