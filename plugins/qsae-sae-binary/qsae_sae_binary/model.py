"""The binary SAE: weights are two's-complement bits. Shapes: B tokens, D model width, F latents, n bits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qsae_core.coders import LinearCoder, QuantizedMatrix
from qsae_core.contracts import Batch, Budget, CoderShape, LossOutput, Parts, SparseCodes
from qsae_core.kernels import decode, squared_error
from qsae_sae_binary import BinaryConfig
from qsae_sae_binary.bits import Bits, least_error_step

COMPARED = 256
"""Tokens of each batch that are decoded both with soft and with hard bits."""


class BitMatrix(QuantizedMatrix):
    """A matrix ``[F, D]`` whose master is the logits of its bits, ``[F, D, n]``."""

    quantizer: Bits

    def before_quantization(self, master: Tensor) -> Tensor:
        """``[F, D]``: the weights that the probabilities stand for."""
        return self.quantizer.soft(master)

    def read_before_quantization(self, read: Callable[[str], Tensor]) -> Tensor:
        """The same from stored logits, scales and temperature."""
        places = self.quantizer.places
        p = torch.sigmoid(read("weight") / (places.abs() * read("quantizer.temperature")))
        return p @ places * read("quantizer.log_step").exp()[:, None]


class BinarySAE(LinearCoder):
    """f = top_k(ReLU(W_enc (x - b_dec) + b_enc)); x_hat = f W + b_dec; with p_i = sigma(theta_i / 2^i T)

    W = step_j (sum_{i<n-1} 2^i p_i - 2^(n-1) p_(n-1)), step_j = gamma_j / 2^(n-1).

    Training begins with these soft weights, while T falls, and goes on from ``train.quantize_after`` with the
    hard bits 1[p > 1/2], whose gradient is that of p. Evaluation has hard bits alone.
    """

    error_weight = 0.5
    config: BinaryConfig
    W_dec: BitMatrix
    unit_norm_rows = False  # atoms have the norm that bits and scale give them

    def __init__(self, config: BinaryConfig, shape: CoderShape, parts: Parts) -> None:
        n, width = config.n_bits, shape.d_out
        step = _usual_step(width, n) if config.gamma is None else config.gamma / 2 ** (n - 1)
        T = step / 4 if config.temperature is None else config.temperature
        made = Bits((config.n_latents, width), n, step=step, per_row=config.per_row, temperature=T)
        super().__init__(config, shape, parts._replace(quantizer=lambda size: made))
        with torch.no_grad():
            integers = (self.W_dec.master / step).round().clamp(-(2 ** (n - 1)), 2 ** (n - 1) - 1)
        self.W_dec = BitMatrix(made.logits_of(integers, config.tau), made)
        self.parts = parts
        self._first_temperature, self._steps = T, 1

    def begin_training(self, budget: Budget) -> None:
        """The temperature falls, and the polarization rises, over the whole run."""
        super().begin_training(budget)
        self._steps = budget.steps

    def loss(self, batch: Batch) -> LossOutput:
        """``1/2 ||x - x_hat||^2 + lambda_p V sum_i 4^i p_i (1 - p_i) / sum_i 4^i``, plus AuxK.

        The second term is a mean over weights; ``lambda_p`` rises linearly, and V is the data's variance.
        """
        x, codes, x_hat, W_enc, W = self.training_pass(batch)
        terms = {"mse": squared_error(x, x_hat) / 2}
        terms |= self.penalty(codes, W) | self.auxk(x, x_hat, W_enc, W) | self.polarization()
        values = self.compare(x, codes) if self.training else {}
        return LossOutput(terms, codes, x, x_hat, values)

    def polarization(self) -> dict[str, Tensor]:
        """``lambda_p V sum_i 4^i p_i (1 - p_i) / sum_i 4^i``, in training."""
        weight = self.config.polarization * float(self.W_dec.quantizer.progress)
        if not self.training or self.config.polarization == 0 or not self.W_dec.master.requires_grad:
            return {}
        p = self.W_dec.quantizer.probabilities(self.W_dec.master)
        shares = 4.0 ** torch.arange(self.config.n_bits, dtype=torch.float32, device=p.device)
        mean = ((p * (1 - p)) @ (shares / shares.sum())).mean()
        return {"polarization": weight * self.units.variance * mean}

    @torch.no_grad()
    def compare(self, x_BD: Tensor, codes: SparseCodes) -> dict[str, Tensor]:
        """FVU of the first tokens with soft and with hard bits, and hard minus soft."""
        x, some = x_BD[:COMPARED], codes.first(COMPARED)
        spread = (x - x.mean(0)).square().sum()
        logits = self.W_dec.master.detach()
        soft, hard = (
            (x - decode(some, weights) - self.b_dec).square().sum() / spread
            for weights in (self.W_dec.quantizer.soft(logits), self.W_dec.quantizer.fake_quantize(logits))
        )
        return {"fvu_soft": soft, "fvu_hard": hard, "fvu_gap": hard - soft}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Lower T, with each logit as many T as before, and put the bits back on the line of integers."""
        bits, master = self.W_dec.quantizer, self.W_dec.master
        share = min(1.0, step / self._steps)
        bits.progress.fill_(share)
        bits.temperature.fill_(self._first_temperature * self.config.final_temperature**share)
        every = self.config.recode_every
        if every and step % every == 0 and not self.W_dec.frozen:
            bits.recode_(master.detach())


def _usual_step(width: int, n_bits: int) -> float:
    """The step of least squared error for unit rows of Gaussian entries."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(64, width, generator=generator, device="cpu")  # read here, wherever the coder is
    return least_error_step(rows / rows.norm(dim=1, keepdim=True), n_bits)
