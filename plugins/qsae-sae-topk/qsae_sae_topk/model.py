"""The TopK SAE (Gao et al., 2024). Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsae_core.coder import LossOutput
from qsae_core.data import Batch
from qsae_core.linear_coder import LinearCoder

if TYPE_CHECKING:
    from qsae_sae_topk import TopKConfig


class TopKSAE(LinearCoder):
    """f = top_k(ReLU(W_enc (x - b_dec) + b_enc)); x_hat = f W_dec + b_dec; rows of W_dec have unit norm."""

    config: TopKConfig
    unit_norm_rows = True

    def loss(self, batch: Batch) -> LossOutput:
        """``||x - x_hat||^2 + alpha ||x||^2-sized AuxK``: AuxK is relative to the residual's variance."""
        W_enc, W_dec = self.W_enc(), self.W_dec()
        x = self.norm_in(batch.x)
        codes = self.encode_normalized(x, W_enc, W_dec)
        x_hat = self.decode_normalized(codes, W_dec)
        if self.training:
            self.dead.update(codes)

        terms = {"mse": (x - x_hat).square().sum(1).mean()} | self.penalty(codes, W_dec)
        if self.training and self.config.auxk_coefficient > 0:
            k_aux = self.config.k_aux or self.shape.d_in // 2
            terms["auxk"] = self.config.auxk_coefficient * self.auxk(x, x - x_hat, W_enc, W_dec, k_aux)
        return LossOutput(terms, codes, x, x_hat)
