"""The ReLU SAE with an L1 penalty (Bricken et al., 2023). Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

from qsae_core.coders import LinearCoder
from qsae_core.contracts import Batch, LossOutput
from qsae_core.kernels import squared_error


class VanillaSAE(LinearCoder):
    """f = ReLU(W_enc (x - b_dec) + b_enc); x_hat = f W_dec + b_dec; rows of W_dec are free.

    The penalty is ``coefficient * sum_j f_j ||w_j||`` (a sum over latents, a mean over tokens): with the
    norms in it, latents cannot shrink their activations by growing their atoms (Conerly et al., 2024).
    """

    splits_latents = True
    unit_norm_rows = False

    def loss(self, batch: Batch) -> LossOutput:
        """``||x - x_hat||^2`` plus the sparsity rule's penalty."""
        x, codes, x_hat, _, W_dec = self.training_pass(batch)
        terms = {"mse": squared_error(x, x_hat)} | self.penalty(codes, W_dec)
        return LossOutput(terms, codes, x, x_hat)
