"""The crosscoder (Lindsey et al., 2024). Shapes: B tokens, L layers, D model width, F latents.

``W_enc`` and ``W_dec`` are matrices ``[F, L D]``: a row is a latent's L encoder or decoder vectors one after
another, so that a sum over layers is one product.
"""

from __future__ import annotations

import pathlib

import torch
from torch import Tensor

from qsae_core.coder import CoderShape, LossOutput, Parts
from qsae_core.codes import SparseCodes
from qsae_core.component import CoderConfig
from qsae_core.conformance.cases import Case
from qsae_core.data import Batch
from qsae_core.kernels import Matrix, as_rows, squared_error
from qsae_core.linear_coder import LinearCoder
from qsae_core.normalization import Normalization
from qsae_core.parts import SparsityRule
from qsae_core.serving import float_rows, require_float_rows


class Crosscoder(LinearCoder):
    """f = rule(ReLU(sum_l W_enc^l (x_l - b_dec^l) + b_enc)); x_hat_l = f W_dec^l + b_dec^l.

    Every layer has a mean and a scale of its own, so that all weigh the same. The loss is ``sum_l ||x_l -
    x_hat_l||^2``, a rule's penalty ``sum_j f_j sum_l ||w_j^l||``, and AuxK. Only the joint norm of a latent's
    L decoder vectors is fixed, to 1: how it is spread over layers is learned.
    """

    reads_layers = True
    normalizes_layers = True
    unit_norm_rows = True

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Two and three layers."""
        return [Case({}, {"layers_in": n, "layers_out": n}) for n in (3, 2)]

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        width = shape.layers_in * shape.d_in
        super().__init__(config, CoderShape(width, width), parts)
        self.shape = shape
        self.norm_in = Normalization(shape.d_in, config.normalize, shape.layers_in)

    def layers_of(self, rows: Tensor) -> Tensor:
        """``[N, L D] -> [N, L, D]``."""
        return rows.unflatten(1, (self.shape.layers_in, self.shape.d_in))

    def loss(self, batch: Batch) -> LossOutput:
        """``sum_l ||x_l - x_hat_l||^2``, the rule's penalty and AuxK, in the normalised space."""
        W_enc, W_dec = self.W_enc.rows(), self.W_dec.rows()
        x = self.norm_in(batch.x).flatten(1)
        codes = self.encode_normalized(x, W_enc, W_dec)
        x_hat = self.decode_normalized(codes, W_dec)
        self.count_firing(codes)
        terms = {"mse": squared_error(x, x_hat)}
        terms |= self.penalty(codes, W_dec) | self.auxk(x, x_hat, W_enc, W_dec)
        return LossOutput(terms, codes, self.layers_of(x), self.layers_of(x_hat))

    def penalty(self, codes: SparseCodes, W_dec_FE: Matrix) -> dict[str, Tensor]:
        """The rule's term with ``sum_l ||w_j^l||`` as the norm of latent j; nothing where it has none."""
        if type(self.sparsity).penalty is SparsityRule.penalty:
            return {}
        term = self.sparsity.penalty(codes, self.layers_of(as_rows(W_dec_FE).dense()).norm(dim=2).sum(1))
        return {} if term is None else {"sparsity": term}

    def encode(self, x: Tensor) -> SparseCodes:
        """``[B, L, D]`` in the data's space -> codes."""
        return self.encode_normalized(self.norm_in(x).flatten(1), self.W_enc.rows(), self.W_dec.rows())

    def decode(self, codes: SparseCodes) -> Tensor:
        """Codes -> ``[B, L, D]`` in the data's space."""
        return self.norm_in.inverse(self.layers_of(self.decode_normalized(codes, self.W_dec.rows())))

    def atoms(self) -> Tensor:
        """float32 ``[F, L, D]``: a latent's decoder vectors in the data's space."""
        return self.norm_in.inverse_direction(self.layers_of(self.W_dec()))

    def dictionary(self, *, quantized: bool = True) -> Tensor:
        """float32 ``[F, L, D]``; see ``SparseCoder.dictionary``."""
        with torch.no_grad():
            rows = self.W_dec() if quantized else require_float_rows(float_rows(self))
            return self.norm_in.inverse_direction(self.layers_of(rows))

    def atom_norms(self) -> Tensor:
        """float32 ``[F]``: joint norms over layers in the data's space."""
        by_layer_FL = self.layers_of(self.W_dec()).norm(dim=2)
        return (by_layer_FL * self.norm_in.scale.view(-1)).norm(dim=1)

    @torch.no_grad()
    def initialize(self, sample: Batch) -> None:
        """Statistics of each layer; ``b_dec`` at the normalised means."""
        self._fit_normalization(sample)
        self.b_dec.copy_(self.norm_in(sample.y).flatten(1).mean(0))
        for matrix in self.matrices().values():
            matrix.quantizer.initialize(matrix.master.detach())
