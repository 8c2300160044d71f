"""The cross-layer transcoder (Ameisen, Lindsey et al., 2025).

Shapes: B tokens, L layers, D width in, E width out, F latents of a layer. A list of tensors has one for each
layer.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from qsae_core.coders import (
    AUXK_EVERY_STEPS,
    OFF,
    CalibratedCoder,
    LevelRules,
    LossUnits,
    Normalization,
    QuantizedMatrix,
    QuantizedValues,
    auxk_loss,
    check_codes,
    check_gates,
    first_pairs,
    kept_inputs,
    normalize_rows_,
)
from qsae_core.conformance import Case
from qsae_core.contracts import (
    Activation,
    Batch,
    Budget,
    Calibration,
    CoderShape,
    LossOutput,
    Parts,
    SparseCodes,
    SparsityRule,
    join_latents,
    split_latents,
)
from qsae_core.errors import ConfigError
from qsae_core.kernels import Rows, decode, encode, full_precision, refusal_to_screen, squared_error
from qsae_transcoder_cross_layer import CrossLayerConfig
from qsae_transcoder_cross_layer.living import LivingLayer, share_of_dead
from qsae_transcoder_cross_layer.sums import sum_of_layers

ENCODER_NORM = 0.1
"""Of the encoder's rows at the start: at norm 1 a token's latents add up to more than the token."""


class CrossLayerTranscoder(CalibratedCoder):
    """f_l = rule(act(W_enc^l x_l + b_enc^l)); y_hat_L = sum_{l <= L} f_l W_dec[l -> L] + b_dec^L [+ W_skip^L
    x_L].

    ``W_dec.l`` is ``[F, (L - l) E]``: a row is a latent's vectors for layer l and all later ones, one after
    another; their joint norm is 1. Each layer has a rule and an activation of its own, and a mean and a scale
    on either side, so that all weigh the same. The loss is ``sum_L ||y_L - y_hat_L||^2``, what the rules ask,
    and AuxK. Coefficients are those of the error of a single layer, as if each layer had a transcoder.
    """

    reads_layers = True
    normalizes_layers = True
    is_autoencoder = False
    config: CrossLayerConfig
    sparsity: LevelRules

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Three and two layers, without and with a skip connection."""
        shapes = {n: {"layers_in": n, "layers_out": n, "d_out": 12} for n in (3, 2)}
        return [
            Case({"n_latents": 22 * n, **skip}, shapes[n]) for n in shapes for skip in ({}, {"skip": True})
        ]

    def __init__(self, config: CrossLayerConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        n_layers, size = shape.layers_in, latents_of_a_layer(config.n_latents, shape)
        self.ends = [size * (layer + 1) for layer in range(n_layers)]
        widths = [(n_layers - layer) * shape.d_out for layer in range(n_layers)]
        self.W_enc, self.W_dec = nn.ModuleList(), nn.ModuleList()
        for width in widths:
            enc, dec = _unit_rows(size, shape.d_in), _unit_rows(size, width)
            quantizers = parts.encoder_quantizer((size, shape.d_in)), parts.quantizer((size, width))
            self.W_enc.append(QuantizedMatrix(enc.mul_(ENCODER_NORM), quantizers[0]))
            self.W_dec.append(QuantizedMatrix(dec, quantizers[1]))
        self.b_enc = nn.Parameter(torch.zeros(config.n_latents, dtype=torch.float32))
        self.b_dec = nn.Parameter(torch.zeros(widths[0], dtype=torch.float32))
        skip = torch.zeros(n_layers, shape.d_out, shape.d_in, dtype=torch.float32)
        self.W_skip = nn.Parameter(skip) if config.skip else None
        self.sparsity = LevelRules(parts.sparsity, self.ends, called="layer")
        self.activation = nn.ModuleList(parts.activation(size) for _ in widths)
        for rule, activation in zip(self.sparsity.each, self._activations, strict=True):
            check_gates(rule, activation)
        self.code_quantizer = nn.ModuleList(QuantizedValues(parts.code_quantizer(size)) for _ in widths)
        self.living = nn.ModuleList(LivingLayer(size) for _ in widths)
        self.units = LossUnits()
        self._restarted: dict[str, Tensor] = {}

    # --- the maths, in the normalised space; matrices are read once a step and passed on

    def encode_normalized(self, x: Sequence[Tensor], W_enc: Sequence[Rows]) -> list[SparseCodes]:
        """Codes of the first layers, from ``[B, D]`` of each."""
        per_layer = zip(x, W_enc, self._b_enc, self._activations, self.sparsity.each, strict=False)
        codes = [encode(*of_layer, screen=self.screen) for of_layer in per_layer]
        return [quantize(c) for quantize, c in zip(self.code_quantizer, codes, strict=False)]

    def decode_normalized(self, codes: Sequence[SparseCodes], W_dec: Sequence[Rows]) -> Tensor:
        """``[B, L E]``: ``sum_{l <= L} f_l W_dec[l -> L] + b_dec^L`` of every layer."""
        return sum_of_layers(self.b_dec, [decode(c, W) for c, W in zip(codes, W_dec, strict=True)])

    def skipped(self, x: Sequence[Tensor]) -> Tensor:
        """``[B, L E]``: ``W_skip^L x_L`` of every layer."""
        assert self.W_skip is not None
        return torch.cat([_product(x_BD, W_ED) for x_BD, W_ED in zip(x, self.W_skip, strict=True)], dim=1)

    def loss(self, batch: Batch) -> LossOutput:
        """``sum_L ||y_L - y_hat_L||^2``, the rules' penalties and AuxK, in the normalised space."""
        W_enc, W_dec = [m.rows() for m in self._encoders], [m.rows() for m in self._decoders]
        x, y = self.normalized(batch.x), self.norm_target(batch.y).flatten(1)
        codes = self.encode_normalized(x, W_enc)
        y_hat = self.decode_normalized(codes, W_dec)
        if self.has_skip:
            y_hat = y_hat + self.skipped(x)
        if self.training:
            for living, layer_codes in zip(self._living, codes, strict=True):
                living.dead.update(layer_codes)
        terms = {"mse": squared_error(y, y_hat)}
        terms |= self.penalty(codes, W_dec) | self.auxk(x, y, y_hat, W_enc, W_dec)
        values = {f"l0_layer_{i}": c.active.sum() / max(1, len(batch)) for i, c in enumerate(codes)}
        by_layer = self.norm_target.by_layer
        return LossOutput(terms, join_latents(codes), by_layer(y), by_layer(y_hat), values)

    @property
    def error_unit(self) -> Tensor:
        """What a normalised error of 1 in one layer is in this loss: every coefficient is of that."""
        return self.units.variance / self.shape.layers_out

    def penalty(self, codes: Sequence[SparseCodes], W_dec: Sequence[Rows]) -> dict[str, Tensor]:
        """The sum over layers of what their rules ask; or nothing. The norm of an atom is that of its vectors
        for all layers as one."""
        rules = self.sparsity.each
        if type(rules[0]).penalty is SparsityRule.penalty:
            return {}  # the norms of all rows are not read for nothing
        rms = self.error_unit.sqrt()
        terms = [rule.penalty(c, W.norms() / rms) for rule, c, W in zip(rules, codes, W_dec, strict=True)]
        known = [term for term in terms if term is not None]
        return {"sparsity": self.error_unit * torch.stack(known).sum()} if known else {}

    def auxk(
        self, x: Sequence[Tensor], y: Tensor, y_hat: Tensor, W_enc: Sequence[Rows], W_dec: Sequence[Rows]
    ) -> dict[str, Tensor]:
        """AuxK of each layer's dead latents, for the error in what they write into, while training and at
        its turn; or nothing. Also looks for where silent latents could begin anew."""
        if not self.training:
            return {}
        terms = []
        k_aux = self.config.k_aux or max(1, self.shape.d_in // 2)
        per_layer = zip(x, W_enc, self._b_enc, W_dec, self._activations, strict=True)
        for living, (x_BD, enc, bias, dec, activation) in zip(self._living, per_layer, strict=True):
            own = slice(y.shape[1] - dec.shape[1], None)
            if self.restarts_latents:
                living.restarts.look(y[:, own], y_hat[:, own], living.dead, x_BD)
            turn = living.dead.turn() if self.config.auxk_coefficient else None
            if turn is not None:
                error, dead = y[turn, own] - y_hat[turn, own], living.dead.mask()
                terms.append(auxk_loss(x_BD[turn], error, enc, bias, dec, dead, activation, k_aux))
        weight = AUXK_EVERY_STEPS * self.config.auxk_coefficient * self.error_unit
        return {"auxk": weight * torch.stack(terms).sum()} if terms else {}

    # --- the contract of coders

    def normalized(self, x: Tensor, layers: int | None = None) -> list[Tensor]:
        """``[B, L, D]`` in the data's space, or the first of its layers -> ``[B, D]`` of each, normalised."""
        z = self.norm_in(self.read(x, layers), slice(layers))
        return list(z.transpose(0, 1).contiguous())

    def encode(self, x: Tensor) -> SparseCodes:
        """``[B, L, D]`` in the data's space -> codes, those of the first layer's latents first."""
        parts = self.encode_normalized(self.normalized(x), [m.rows() for m in self._encoders])
        return replace(join_latents(parts), inputs=self.read(x) if self.has_skip else None)

    def decode(self, codes: SparseCodes) -> Tensor:
        """Codes -> ``[B, L, E]`` in the data's space."""
        check_codes(codes, self.n_latents)
        parts = split_latents(codes, self.ends)
        y_hat = self.decode_normalized(parts, [m.rows() for m in self._decoders])
        if self.has_skip:
            y_hat = y_hat + self.skipped(self.normalized(kept_inputs(codes)))
        return self.norm_target.inverse(self.norm_target.by_layer(y_hat))

    def layers_read(self, layer: int) -> tuple[int, ...]:
        """Its own and all before it."""
        return tuple(range(layer + 1))

    def reconstruct_layer(self, x: Tensor, layer: int) -> Tensor:
        """``[B, layer + 1, D] -> [B, E]``.

        Raises:
            DataError: for vectors of other layers than those.
        """
        z = self.normalized(x, layer + 1)
        codes = self.encode_normalized(z, [m.rows() for m in self._encoders])
        width = self.shape.d_out
        y_hat = self.b_dec[layer * width : (layer + 1) * width]
        for source, (part, matrix) in enumerate(zip(codes, self._decoders, strict=False)):
            own = slice((layer - source) * width, (layer - source + 1) * width)
            y_hat = y_hat + decode(part, matrix.rows())[:, own]
        if self.W_skip is not None:
            y_hat = y_hat + _product(z[layer], self.W_skip[layer])
        return self.norm_target.inverse(y_hat[:, None], slice(layer, layer + 1))[:, 0]

    @property
    def has_skip(self) -> bool:
        """Whether there is a ``W_skip``."""
        return self.W_skip is not None

    @torch.no_grad()
    def initialize(self, sample: Batch) -> None:
        """Normalisation and units from the sample, ``b_dec`` at the normalised mean of the target. Latents
        begin at tokens of the sample, at 0 for the mean input; learned scales are from the rows."""
        super().initialize(sample)
        x, y = self.normalized(sample.x), self.norm_target(sample.y).flatten(1)
        self.units.fit(y)
        self.b_dec.copy_(y.mean(0))
        per_layer = zip(x, self._encoders, self._decoders, self._b_enc, strict=True)
        for x_BD, enc, dec, bias in per_layer:
            left = y.shape[1] - dec.shape[1]
            encoders, atoms = first_pairs(x_BD, (y - self.b_dec)[:, left:], self.ends[0])
            enc.master[: len(atoms)], dec.master[: len(atoms)] = ENCODER_NORM * encoders, atoms
            bias.copy_(-enc.master @ x_BD.mean(0))
        for matrix in self.matrices().values():
            matrix.quantizer.initialize(matrix.master.detach())

    # --- training

    @property
    def dictionary_size(self) -> int:
        """Latents of a layer."""
        return self.ends[0]

    def begin_training(self, budget: Budget) -> None:
        """Scale the dead threshold and the restarts to the run's length."""
        for living in self._living:
            living.begin(self.config.dead_after_tokens, budget)

    @property
    def restarts_latents(self) -> bool:
        """Whether silent latents begin anew: where that is on, and no decoder is frozen."""
        return self.config.restart and not any(matrix.frozen for matrix in self._decoders)

    def after_step(self, step: int) -> None:
        """Let silent latents begin anew where it is their turn."""
        self._restarted, chosen = {}, torch.zeros_like(self.b_enc, dtype=torch.bool)
        per_layer = zip(self._living, self._encoders, self._decoders, self._b_enc, strict=True)
        for layer, (living, enc, dec, bias) in enumerate(per_layer):
            found = living.restart(layer, enc.master, dec.master, bias)
            if found is not None:
                rows, chosen[self._range(layer)] = found
                self._restarted |= {**rows, "b_enc": chosen}

    def restarted(self) -> Mapping[str, Tensor]:
        """The rows of latents that began anew after the last step."""
        return self._restarted

    def dead_share(self) -> float:
        """Of the latents of all layers."""
        return share_of_dead(self._living)

    def unit_norm_matrices(self) -> list[QuantizedMatrix]:
        """The decoders."""
        return self._decoders

    def rotated_parameters(self) -> Mapping[str, Normalization]:
        """All matrices and ``b_dec``."""
        found = {f"W_enc.{layer}.weight": self.norm_in for layer in range(len(self.ends))}
        found |= {f"W_dec.{layer}.weight": self.norm_target for layer in range(len(self.ends))}
        return {**found, **({"W_skip": self.norm_in} if self.has_skip else {}), "b_dec": self.norm_target}

    # --- quantization, and what is asked of a trained coder

    def placed(self, rows: Sequence[Tensor]) -> Tensor:
        """``[L F, L, E]``: zeros in the layers before a latent's own."""
        atoms = rows[0].new_zeros(self.n_latents, self.shape.layers_out, self.shape.d_out)
        for layer, rows_FE in enumerate(rows):
            atoms[self._range(layer), layer:] = rows_FE.unflatten(1, (-1, self.shape.d_out))
        return atoms

    def code_levels(self, codes: SparseCodes) -> Tensor | None:
        """uint8 ``[N]``, of each layer's own code quantizer; None where values are float32."""
        quantizers = [cast(QuantizedValues, values).quantizer for values in self.code_quantizer]
        if quantizers[0].is_identity:
            return None
        levels = torch.empty_like(codes.indices, dtype=torch.uint8)
        for layer, quantizer in enumerate(quantizers):
            rows = self._range(layer)
            own = (codes.indices >= rows.start) & (codes.indices < rows.stop)
            levels[own] = quantizer.pack(codes.values[own], codes.indices[own] - rows.start)
        return levels

    def calibrations(self, batch: Batch, codes: SparseCodes) -> Iterator[tuple[str, Calibration]]:
        """Layer after layer: what of the target no other layer's latents decode to, as they are by then."""
        parts = split_latents(codes, self.ends)
        y = self.norm_target(batch.y).flatten(1)
        if self.has_skip:
            y = y - self.skipped(self.normalized(batch.x))
        for layer, matrix in enumerate(self._decoders):
            silent = parts[layer].with_values(torch.zeros_like(parts[layer].values))
            others = [*parts[:layer], silent, *parts[layer + 1 :]]
            left = y - self.decode_normalized(others, [m.rows() for m in self._decoders])
            yield f"W_dec.{layer}", Calibration(parts[layer], left[:, left.shape[1] - matrix.shape[1] :])

    @torch.no_grad()
    def switch_off(self, latents_F: Tensor) -> None:
        """By their biases."""
        self.b_enc[latents_F] = OFF

    def refusal_to_screen(self) -> str | None:
        """Why ``screen`` cannot be used, from the first layer's rule and activation; None where it can."""
        return refusal_to_screen(self._activations[0], self.sparsity.each[0])

    def screened_rules(self) -> Sequence[SparsityRule]:
        """One for each layer."""
        return self.sparsity.each

    # --- its parts, layer by layer

    @property
    def _encoders(self) -> list[QuantizedMatrix]:
        return [cast(QuantizedMatrix, matrix) for matrix in self.W_enc]

    @property
    def _decoders(self) -> list[QuantizedMatrix]:
        return [cast(QuantizedMatrix, matrix) for matrix in self.W_dec]

    @property
    def _activations(self) -> list[Activation]:
        return [cast(Activation, activation) for activation in self.activation]

    @property
    def _living(self) -> list[LivingLayer]:
        return [cast(LivingLayer, layer) for layer in self.living]

    @property
    def _b_enc(self) -> Sequence[Tensor]:
        return self.b_enc.split(self.ends[0])

    def _range(self, layer: int) -> slice:
        return slice(self.ends[layer] - self.ends[0], self.ends[layer])


def latents_of_a_layer(n_latents: int, shape: CoderShape) -> int:
    """The latents of each layer, as many as of every other.

    Raises:
        ConfigError: if they do not divide, or there are not as many layers on both sides.
    """
    layers = shape.layers_in
    if layers != shape.layers_out:
        raise ConfigError(
            f"a cross-layer transcoder reads {layers} layers and would write into {shape.layers_out}",
            where="data",
            allowed="as many layers on both sides, the source and the target of each",
            next="--layers 0-3 --source-site mlp_in --target-site mlp_out",
        )
    size, over = divmod(n_latents, layers)
    if over or not size:
        larger = (size + 1) * layers
        raise ConfigError(
            f"{n_latents} latents do not divide into {layers} layers of equally many",
            where="n_latents",
            allowed=f"a multiple of {layers}",
            next=f"--n-latents {larger}",
        )
    return size


@full_precision
def _product(x_BD: Tensor, W_ED: Tensor) -> Tensor:
    return x_BD @ W_ED.T


def _unit_rows(rows: int, columns: int) -> Tensor:
    matrix = torch.randn(rows, columns, dtype=torch.float32)
    normalize_rows_(matrix)
    return matrix
