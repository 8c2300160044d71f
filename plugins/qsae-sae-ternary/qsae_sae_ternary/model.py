"""The ternary SAE. Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

from qsae_core.coder import LossOutput
from qsae_core.data import Batch
from qsae_core.kernels import squared_error
from qsae_core.linear_coder import LinearCoder


class TernarySAE(LinearCoder):
    """f = top_k(ReLU(W_enc (x - b_dec) + b_enc)); x_hat = f W_hat + b_dec; W_hat = quantize(W_dec).

    The masters W_dec keep unit norm: a row's scale is the quantizer's business, and without a fixed norm the
    masters drift, so that the same step of Adam flips ever fewer weights.
    """

    unit_norm_rows = True

    def loss(self, batch: Batch) -> LossOutput:
        """``||x - x_hat||^2`` through the quantized decoder, plus AuxK over dead latents."""
        W_enc, W_hat = self.W_enc.rows(), self.W_dec.rows()
        x = self.norm_in(batch.x)
        codes = self.encode_normalized(x, W_enc, W_hat)
        x_hat = self.decode_normalized(codes, W_hat)
        self.count_firing(codes)
        mse = squared_error(x, x_hat)
        terms = {"mse": mse} | self.penalty(codes, W_hat) | self.auxk(x, x_hat, W_enc, W_hat)
        return LossOutput(terms, codes, x, x_hat)
