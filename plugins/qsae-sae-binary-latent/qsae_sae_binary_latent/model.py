"""The binary-latent SAE. Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

from qsae_core.coders import BinaryLatentCoder
from qsae_core.contracts import Batch, LossOutput
from qsae_core.kernels import squared_error


class BinaryLatentSAE(BinaryLatentCoder):
    """f_j = m_j 1[s_j >= 1/2], s = sigma(W_enc (x - b_dec) + b_enc); x_hat = f W_dec + b_dec.

    Latents are ranked by their pre-activations and gated afterwards; the gradient of the bit is that of s.
    Rows of W_dec have unit norm: what an atom contributes is its magnitude m_j.
    """

    def loss(self, batch: Batch) -> LossOutput:
        """``||x - x_hat||^2``, plus AuxK over dead latents."""
        x, codes, x_hat, W_enc, W_dec = self.training_pass(batch)
        mse = squared_error(x, x_hat)
        terms = {"mse": mse} | self.penalty(codes, W_dec) | self.auxk(x, x_hat, W_enc, W_dec)
        return LossOutput(terms, codes, x, x_hat)
