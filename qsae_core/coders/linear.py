"""LinearCoder: one encoder matrix, one decoder matrix; what most variants are built on.

Shapes: B tokens, D width of the input, E width of the output (D for an SAE), F latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from qsae_core import kernels
from qsae_core.coder_options import CoderConfig, OffsetConfig, TranscoderConfig
from qsae_core.coders import inputs, splitting
from qsae_core.coders.calibrated_coder import CalibratedCoder
from qsae_core.coders.dead_latents import DeadLatents
from qsae_core.coders.dense import defined_anew, linear_form, no_dense_form
from qsae_core.coders.drawn_rows import rows_like, unit_rows
from qsae_core.coders.fused import FusedDecoder, FusedEncoder, fused_decoder, fused_encoder
from qsae_core.coders.living_latents import LivingLatents
from qsae_core.coders.loss_units import LossUnits
from qsae_core.coders.normalization import Normalization
from qsae_core.coders.quantized_matrix import QuantizedMatrix
from qsae_core.coders.quantized_values import QuantizedValues
from qsae_core.component import name_of
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.coder import CoderShape, Parts
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.cross_layer import Form
from qsae_core.contracts.data import Batch
from qsae_core.contracts.dense import DenseForm
from qsae_core.contracts.quantizer import Calibration
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.errors import ConfigError
from qsae_core.kernels import Matrix, Rows, as_rows, partners
from qsae_core.kernels.precision import full_precision
from qsae_core.reading import let_go

OFF = -1e9
"""Encoder bias of a latent that is switched off: no input makes up for it, and times a gate of 0 it is 0."""


class Pass(NamedTuple):
    """What a loss is made of: a batch through a LinearCoder, in the normalised space."""

    x: Tensor
    """``[B, D]``: what was encoded."""
    codes: SparseCodes
    x_hat: Tensor
    """``[B, E]``: what was decoded from the codes."""
    W_enc: Rows
    W_dec: Rows


class LinearCoder(LivingLatents, CalibratedCoder):
    """``f = rule(activation(W_enc (x - b_dec) + b_enc))``, ``x_hat = f W_dec + b_dec``.

    Both are in the normalised space. A transcoder whose config has ``skip`` set adds ``W_skip x``, with
    the normalised x. A variant defines ``loss``, sets the class attributes, and overrides
    what else it does differently.
    """

    unit_norm_rows: bool = True
    """Keep decoder rows at unit norm: project the gradient before the step, renormalise after it."""
    subtract_b_dec: bool = True
    """Subtract ``b_dec`` from the input before encoding; transcoders do not. An ``OffsetConfig`` says it for
    each coder."""
    encoder_scale: float = 0.1
    """Norm of the encoder's rows at the start, ``encoder_scale * W_dec``. At norm 1 a token's k latents, far
    from orthogonal, add up to more than the token, and the first steps do no more than undo that."""

    bias_rate: float = 1.0
    """What the run's learning rate is multiplied by for ``b_enc``."""

    served_encoder: FusedEncoder | None = None
    served_decoder: FusedDecoder | None = None

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        if isinstance(config, OffsetConfig):
            self.subtract_b_dec = config.subtract_b_dec
        n, own = self.n_latents, self.own_latents
        # layers that are normalised one by one are one long vector to the matrices
        d_in, d_out = shape.d_in * self.norm_in.layers, shape.d_out * self.norm_out.layers
        atoms = unit_rows(config.n_latents, d_out, own)
        if self.is_autoencoder:
            directions = rows_like(atoms, self.encoder_scale)
        else:
            directions = unit_rows(config.n_latents, d_in, own, self.encoder_scale)
        self.W_enc = QuantizedMatrix(directions, parts.encoder_quantizer((n, d_in)))
        self.W_dec = QuantizedMatrix(atoms, parts.quantizer((n, d_out)))
        self.b_enc = nn.Parameter(torch.zeros(n, dtype=torch.float32))
        self.b_dec = nn.Parameter(torch.zeros(d_out, dtype=torch.float32))
        skips = isinstance(config, TranscoderConfig) and config.skip
        W_skip = torch.zeros(d_out, d_in, dtype=torch.float32)
        self.W_skip = nn.Parameter(W_skip) if skips else None
        self.activation = parts.activation(n)
        self.sparsity = parts.sparsity(config.n_latents)
        check_gates(self.sparsity, self.activation)
        self.code_quantizer = QuantizedValues(parts.code_quantizer(n))
        self.dead = DeadLatents(n)
        self.units = LossUnits()

    def __getstate__(self) -> dict[str, Any]:
        """Without addresses, which are another coder's in a copy or another process."""
        return {**self.__dict__, "served_encoder": None, "served_decoder": None}

    # --- the maths, in the normalised space; matrices are read once a step and passed on

    def normalized(self, x: Tensor) -> Tensor:
        """``[B, D]`` (or ``[B, L, D]``) in the data's space -> what the encoder reads, one vector a token."""
        return self.norm_in(self.read(x)).flatten(1)

    def training_pass(self, batch: Batch) -> Pass:
        """A batch through the coder; takes it into the dead counters in training."""
        W_enc, W_dec = self.W_enc.rows(), self.W_dec.rows()
        x = self.normalized(batch.x)
        codes = self.encode_normalized(x, W_enc, W_dec)
        x_hat = self.skipped_past(self.decode_normalized(codes, W_dec), x)
        self.count_firing(codes)
        return Pass(x, codes, x_hat, W_enc, W_dec)

    def encode_normalized(self, x_BD: Tensor, W_enc_FD: Matrix, W_dec_FE: Matrix) -> SparseCodes:
        """Codes of normalised inputs; ranked by ``f_j ||w_j||`` where rows are not of unit norm."""
        codes = kernels.encode(
            x_BD,
            W_enc_FD,
            self.b_enc,
            self.activation,
            self.sparsity,
            importance_F=None if self.unit_norm_rows else as_rows(W_dec_FE).norms().detach(),
            offset_D=self.encoder_offset,
            screen=self.screen,
        )
        quantized: SparseCodes = self.code_quantizer(codes)
        return quantized

    def decode_normalized(self, codes: SparseCodes, W_dec_FE: Matrix) -> Tensor:
        """``f W_dec + b_dec``: the normalised reconstruction ``[B, E]``."""
        return partners().total(kernels.decode(codes, W_dec_FE)) + partners().share(self.b_dec)

    @property
    def has_skip(self) -> bool:
        """Whether there is a ``W_skip``."""
        return self.W_skip is not None

    @full_precision
    def skipped_past(self, x_hat_BE: Tensor, x_BD: Tensor) -> Tensor:
        """``x_hat + W_skip x``, or ``x_hat`` without a skip connection; all normalised."""
        return x_hat_BE if self.W_skip is None else x_hat_BE + x_BD @ partners().share(self.W_skip).T

    @property
    def encoder_offset(self) -> Tensor | None:
        """``[D]``: what is subtracted from inputs before the encoder, ``b_dec``; None where nothing is."""
        return self.b_dec if self.subtract_b_dec else None

    @full_precision
    def encoder_bias(self, W_enc_FD: Tensor) -> Tensor:
        """``[F]``: ``b_enc - W_enc b_dec``, or ``b_enc``: the bias of an encoder without offset."""
        return self.b_enc - W_enc_FD @ self.b_dec if self.subtract_b_dec else self.b_enc

    def penalty(self, codes: SparseCodes, W_dec_FE: Matrix) -> dict[str, Tensor]:
        """The sparsity rule's price beside the normalised error, in the units of the loss; or nothing."""
        if type(self.sparsity).penalty is SparsityRule.penalty:
            return {}  # the norms of all rows are not read for nothing
        term = self.sparsity.penalty(codes, self.priced_norms(W_dec_FE) / self.units.rms())
        return {} if term is None else {"sparsity": self.error_unit * term}

    def priced_norms(self, W_dec_FE: Matrix) -> Tensor:
        """``[F]``: the norm of each atom as a penalty counts it."""
        return as_rows(W_dec_FE).norms()

    # --- the contract of MatrixCoder

    def encode(self, x: Tensor) -> SparseCodes:
        """``[B, D]`` in the data's space -> codes."""
        fused = fused_encoder(self, LinearCoder)
        if fused is not None and fused.serves(x):
            codes: SparseCodes = self.code_quantizer(fused.encode(self, x))
        else:
            codes = self.encode_normalized(self.normalized(x), self.W_enc.rows(), self.W_dec.rows())
        return replace(codes, inputs=self.read(x)) if self.has_skip else codes

    def decode(self, codes: SparseCodes) -> Tensor:
        """Codes -> ``[B, E]`` in the data's space; codes of another coder or level are refused."""
        fused = None if self.has_skip else fused_decoder(self, LinearCoder)
        if fused is not None and fused.serves(codes, self.n_latents):
            decoded = fused.decode(codes)
            if decoded is not None:
                return decoded
        inputs.check_codes(codes, self.n_latents)
        x_hat = self.decode_normalized(codes, self.W_dec.rows())
        if self.has_skip:
            x_hat = self.skipped_past(x_hat, self.normalized(inputs.kept_inputs(codes)))
        return self.norm_out.inverse(self.norm_out.by_layer(x_hat))

    @torch.no_grad()
    def initialize(self, sample: Batch) -> None:
        """Normalisation and units from the sample, ``b_dec`` at the normalised mean, learned scales from the
        rows."""
        super().initialize(sample)
        target = self.norm_out(sample.y).flatten(1)
        self.units.fit(target)
        self.b_dec.copy_(target.mean(0))
        self.begin_rows(sample)
        for matrix in self.matrices().values():
            matrix.quantizer.initialize(matrix.master.detach())

    def begin_rows(self, sample: Batch) -> None:
        """What a variant sets from the sample before quantizers measure the rows: nothing here."""

    def dense(self) -> DenseForm:
        """As MatrixCoder, of a variant that encodes and decodes as a LinearCoder; others override it."""
        return linear_form(self, defined_anew(type(self), LinearCoder))

    @torch.no_grad()
    def take_form(self, form: Form) -> None:
        """As MatrixCoder, of a dense form with an offset like this coder's."""
        if not isinstance(form, DenseForm):
            raise no_dense_form(self, "a cross-layer transcoder has matrices for each layer")
        self.eval()
        for matrix, rows in ((self.W_enc, form.W_enc), (self.W_dec, form.W_dec)):
            matrix.take(rows)
            let_go(rows)
        self.b_dec.copy_(form.b_dec)
        self.b_enc.copy_(form.b_enc)
        if form.W_skip is not None and self.W_skip is not None:
            self.W_skip.copy_(form.W_skip)
        point = self.activation.pointwise()
        if point is not None and point.function == form.activation:
            self.activation.take(form.pointwise)

    def form_to_take(self, form: Form) -> Form:
        """As MatrixCoder."""
        return form.with_offset(self.subtract_b_dec) if isinstance(form, DenseForm) else form

    def refusal_to_screen(self) -> str | None:
        """Why ``screen`` cannot be used, from the sparsity rule and the activation; None where it can."""
        return kernels.refusal_to_screen(self.activation, self.sparsity)

    def screened_rules(self) -> Sequence[SparsityRule]:
        """The one that there is."""
        return (self.sparsity,)

    def refusal_to_calibrate(self) -> str | None:
        """As CalibratedCoder; a variant that decodes in a way of its own cannot be."""
        if type(self).decode_normalized is LinearCoder.decode_normalized:
            return None
        return "it does not decode as f W_dec + b_dec, which calibration is made for"

    def calibrations(self, batch: Batch, codes: SparseCodes) -> Iterator[tuple[str, Calibration]]:
        """Of ``W_dec``: the target without ``b_dec`` and without what goes past the latents."""
        target = self.norm_out(self.target(batch)).flatten(1) - self.b_dec
        if self.has_skip:
            target = target - self.skipped_past(torch.zeros_like(target), self.normalized(batch.x))
        yield "W_dec", Calibration(codes, target)

    @torch.no_grad()
    def switch_off(self, latents_F: Tensor) -> None:
        """By their biases."""
        self.b_enc[latents_F] = OFF

    def spaces(self) -> Mapping[str, tuple[Normalization, ...]]:
        """Of both matrices, ``W_skip`` and ``b_dec``."""
        skip = {"W_skip": (self.norm_out, self.norm_in)} if self.has_skip else {}
        written = {"W_dec.weight": (self.norm_out,), "b_dec": (self.norm_out,)}
        return {"W_enc.weight": (self.norm_in,), **written, **skip}

    def rate_factors(self) -> Mapping[str, float]:
        """That of the encoder's bias."""
        return {"b_enc": self.bias_rate}

    def latent_tensors(self) -> frozenset[str]:
        """As MatrixCoder."""
        return splitting.latent_tensors(self.state_dict(), self.n_latents)

    def unit_norm_matrices(self) -> list[QuantizedMatrix]:
        """The decoder, where its rows have unit norm."""
        return [self.W_dec] if self.unit_norm_rows else []


def check_gates(rule: SparsityRule, activation: Activation) -> None:
    """A rule that prices the number of active latents needs an activation that says how it changes.

    Raises:
        ConfigError: where it does not.
    """
    if rule.needs_gates and not activation.has_gates:
        raise ConfigError(
            f"'{name_of(rule)}' prices the number of active latents, and activation "
            f"'{name_of(activation)}' has no gradient for it",
            where="sparsity",
            allowed="an activation with a learned or fixed jump: jumprelu, step",
            next="--activation jumprelu, or another --sparsity",
        )
