"""The JumpReLU SAE (Rajamanoharan et al., 2024). Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core import CoderConfig, name_of
from qsae_core.coders import LinearCoder
from qsae_core.contracts import Batch, CoderShape, LossOutput, Parts
from qsae_core.errors import ConfigError
from qsae_core.kernels import Matrix, as_rows, partners, squared_error
from qsae_sae_jumprelu import JumpReLUConfig


class JumpReLUSAE(LinearCoder):
    """f = z 1[z > theta], z = W_enc (x - b_dec) + b_enc; x_hat = f W_dec + b_dec; rows of unit norm."""

    splits_latents = True
    unit_norm_rows = True
    config: JumpReLUConfig

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        if self.config.preact_coefficient and "theta" not in dict(self.activation.named_parameters()):
            raise ConfigError(
                f"activation '{name_of(self.activation)}' has no threshold that a dead latent could be below",
                where="preact_coefficient",
                allowed="0, or an activation with thresholds theta",
                next="--activation jumprelu, or --preact-coefficient 0",
            )

    def loss(self, batch: Batch) -> LossOutput:
        """``||x - x_hat||^2``, the price on L0, and the pre-activation loss where it is on."""
        x, codes, x_hat, W_enc, W_dec = self.training_pass(batch)
        terms = {"mse": squared_error(x, x_hat)} | self.penalty(codes, W_dec)
        if self.training and self.config.preact_coefficient:
            depth = partners().total(self.below_threshold(x, W_enc, W_dec)) / self.units.rms()
            terms["preact"] = self.config.preact_coefficient * self.error_unit * depth
        return LossOutput(terms, codes, x, x_hat)

    def below_threshold(self, x_BD: Tensor, W_enc_FD: Matrix, W_dec_FE: Matrix) -> Tensor:
        """``sum over dead j of ReLU(theta_j - z_j) ||w_j||``, mean over tokens: it lifts dead latents."""
        dead = self.dead.mask().nonzero().squeeze(1)
        if not dead.numel():
            return x_BD.new_zeros(())
        read_BD = x_BD if self.encoder_offset is None else x_BD - self.encoder_offset
        pre_acts = read_BD @ as_rows(W_enc_FD).take(dead).T + self.b_enc[dead]
        theta = self.activation.get_parameter("theta")
        norms = as_rows(W_dec_FE).norms().detach()
        return (torch.relu(theta[dead] - pre_acts) * norms[dead]).sum(1).mean()
