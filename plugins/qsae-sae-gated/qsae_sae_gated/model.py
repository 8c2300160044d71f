"""The gated SAE (Rajamanoharan et al., 2024). Shapes: B tokens, D model width, F latents, N entries."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from qsae_core import CoderConfig, ComponentConfig, kernels
from qsae_core.coders import LinearCoder
from qsae_core.contracts import Activation, Batch, CoderShape, LossOutput, Parts, Pointwise
from qsae_core.kernels import as_rows, squared_error

FAINT = 1e-20


class GatedLatents(Activation):
    """``f = 1[pi > 0] ReLU(e^r (pi - b_gate) + b_mag)``; ``pi - b_gate`` is ``W_enc (x - b_dec)``."""

    straight_through = True
    has_gates = True
    b_gate: tuple[Tensor]  # the coder's b_enc, in a tuple since it is the coder's parameter already

    def __init__(self, n_latents: int) -> None:
        super().__init__(ComponentConfig(), n_latents)
        self.r = nn.Parameter(torch.zeros(n_latents, dtype=torch.float32))
        self.b_mag = nn.Parameter(torch.zeros(n_latents, dtype=torch.float32))

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """Latents from ``pi``; what b_gate gets through it and through its subtraction cancels."""
        own: list[Tensor] = [self.r, self.b_mag, self.b_gate[0]]
        if latent_index is not None:
            own = [p.index_select(0, latent_index) for p in own]
        r, b_mag, b_gate = own
        return (pre_acts > 0) * torch.relu(r.exp() * (pre_acts - b_gate) + b_mag)

    def candidates(self, pre_BF: Tensor) -> Tensor:
        """In training every latent with ``pi > 0``: the auxiliary term wants it, whatever its magnitude."""
        latents: Tensor = self(pre_BF)
        return latents + FAINT * (pre_BF > 0) if self.training else latents

    def pointwise(self) -> Pointwise:
        """Gated latents, with the coder's b_enc as ``b_gate``."""
        r, b_mag, b_gate = (p.detach() for p in (self.r, self.b_mag, self.b_gate[0]))
        return Pointwise("gated", r_mag=r, b_mag=b_mag, b_gate=b_gate)

    @torch.no_grad()
    def take(self, point: Pointwise) -> None:
        """``r`` and ``b_mag``; ``b_gate`` is the coder's b_enc."""
        super().take(point)
        assert point.r_mag is not None
        assert point.b_mag is not None
        self.r.copy_(point.r_mag)
        self.b_mag.copy_(point.b_mag)

    def gates(self, pre_N: Tensor, latent_N: Tensor) -> Tensor:
        """``ReLU(pi)``, which the auxiliary term and the penalty read in place of 1."""
        return torch.relu(pre_N)


class GatedSAE(LinearCoder):
    """The gate decides which latents are active, the magnitude how strongly; rows have unit norm."""

    unit_norm_rows = True
    activation: GatedLatents

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts._replace(activation=GatedLatents))
        self.activation.b_gate = (self.b_enc,)
        self.sparsity.needs_gates = True  # type: ignore[misc]

    def loss(self, batch: Batch) -> LossOutput:
        """``||x - x_hat||^2``, the penalty on ReLU(pi), and ``||x - (ReLU(pi) sg[W_dec] + sg[b_dec])||^2``.

        Without the last term the gate's bias would get no gradient but the penalty's.
        """
        x, codes, x_hat, _, W_dec = self.training_pass(batch)
        assert codes.gates is not None
        opened, codes = codes.with_values(codes.gates), replace(codes, gates=None)
        x_gate = kernels.decode(opened, as_rows(W_dec).dense().detach()) + self.b_dec.detach()
        terms = {"mse": squared_error(x, x_hat), "gate": squared_error(x, x_gate)}
        return LossOutput(terms | self.penalty(opened, W_dec), codes, x, x_hat)
