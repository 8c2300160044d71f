"""The cross-layer transcoder (Ameisen, Lindsey et al., 2025).

Shapes: B tokens, L layers, D width in, E width out, F latents of a layer. A list of tensors has one for each
layer.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from qsae_core.coders import check_codes, first_pairs, kept_inputs
from qsae_core.conformance import Case
from qsae_core.contracts import (
    Batch,
    Calibration,
    LossOutput,
    SparseCodes,
    SparsityRule,
    join_latents,
    split_latents,
)
from qsae_core.kernels import Rows, decode, encode, full_precision, squared_error
from qsae_transcoder_cross_layer.form import FormedLayers
from qsae_transcoder_cross_layer.layers import ENCODER_NORM
from qsae_transcoder_cross_layer.living import LivingLayers
from qsae_transcoder_cross_layer.sums import sum_of_layers


class CrossLayerTranscoder(LivingLayers, FormedLayers):
    """f_l = rule(act(W_enc^l x_l + b_enc^l)); y_hat_L = sum_{l <= L} f_l W_dec[l -> L] + b_dec^L [+ W_skip^L
    x_L].

    ``W_dec.l`` is ``[F, (L - l) E]``: a row is a latent's vectors for layer l and all later ones, one after
    another; their joint norm is 1. Each layer has a rule and an activation of its own, and a mean and a scale
    on either side, so that all weigh the same. The loss is ``sum_L ||y_L - y_hat_L||^2``, what the rules ask,
    and AuxK. Coefficients are those of the error of a single layer, as if each layer had a transcoder.
    """

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Three and two layers, without and with a skip connection."""
        shapes = {n: {"layers_in": n, "layers_out": n, "d_out": 12} for n in (3, 2)}
        return [
            Case({"n_latents": 22 * n, **skip}, shapes[n]) for n in shapes for skip in ({}, {"skip": True})
        ]

    # --- the maths, in the normalised space; matrices are read once a step and passed on

    def encode_normalized(self, x: Sequence[Tensor], W_enc: Sequence[Rows]) -> list[SparseCodes]:
        """Codes of the first layers, from ``[B, D]`` of each."""
        per_layer = zip(x, W_enc, self._b_enc, self._activations, self.sparsity.each, strict=False)
        codes = [encode(*of_layer, screen=self.screen) for of_layer in per_layer]
        return [quantize(c) for quantize, c in zip(self.code_quantizer, codes, strict=False)]

    def decode_normalized(self, codes: Sequence[SparseCodes], W_dec: Sequence[Rows]) -> Tensor:
        """``[B, L E]``: ``sum_{l <= L} f_l W_dec[l -> L] + b_dec^L`` of every layer."""
        return sum_of_layers(self.b_dec, [decode(c, W) for c, W in zip(codes, W_dec, strict=True)])

    def _skipped(self, x: Sequence[Tensor]) -> Tensor:
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
            y_hat = y_hat + self._skipped(x)
        if self.training:
            for living, layer_codes in zip(self._living, codes, strict=True):
                living.dead.update(layer_codes)
        terms = {"mse": squared_error(y, y_hat)}
        terms |= self._penalty(codes, W_dec) | self.auxk(x, y, y_hat, W_enc, W_dec)
        values = {f"l0_layer_{i}": c.active.sum() / max(1, len(batch)) for i, c in enumerate(codes)}
        by_layer = self.norm_target.by_layer
        return LossOutput(terms, join_latents(codes), by_layer(y), by_layer(y_hat), values)

    def _penalty(self, codes: Sequence[SparseCodes], W_dec: Sequence[Rows]) -> dict[str, Tensor]:
        """The sum over layers of what their rules ask; or nothing. The norm of an atom is that of its vectors
        for all layers as one."""
        rules = self.sparsity.each
        if type(rules[0]).penalty is SparsityRule.penalty:
            return {}  # the norms of all rows are not read for nothing
        rms = self.error_unit.sqrt()
        terms = [rule.penalty(c, W.norms() / rms) for rule, c, W in zip(rules, codes, W_dec, strict=True)]
        known = [term for term in terms if term is not None]
        return {"sparsity": self.error_unit * torch.stack(known).sum()} if known else {}

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
            y_hat = y_hat + self._skipped(self.normalized(kept_inputs(codes)))
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
            mean_D = x_BD.mean(0)
            centred = x_BD if self.norm_in.centres else x_BD - mean_D
            encoders, atoms = first_pairs(centred, (y - self.b_dec)[:, left:], self.ends[0])
            enc.master[: len(atoms)], dec.master[: len(atoms)] = ENCODER_NORM * encoders, atoms
            bias.copy_(-enc.master @ mean_D)
        for matrix in self.matrices().values():
            matrix.quantizer.initialize(matrix.master.detach())

    def calibrations(self, batch: Batch, codes: SparseCodes) -> Iterator[tuple[str, Calibration]]:
        """Layer after layer: what of the target no other layer's latents decode to, as they are by then, and
        what those of earlier layers miss of what they gave in float32. Latents of several layers that write
        into one are thus shown a common problem: the later make up for the earlier."""
        parts = split_latents(codes, self.ends)
        left = self.norm_target(batch.y).flatten(1) - self.b_dec
        if self.has_skip:
            left -= self._skipped(self.normalized(batch.x))
        own = [slice(left.shape[1] - matrix.shape[1], None) for matrix in self._decoders]
        for columns, part, matrix in zip(own, parts, self._decoders, strict=True):
            left[:, columns] -= decode(part, matrix.master)
        missed = torch.zeros_like(left)
        for layer, (columns, part, matrix) in enumerate(zip(own, parts, self._decoders, strict=True)):
            given, before = decode(part, matrix.master), missed[:, columns].clone()
            target = left[:, columns] + before + given
            yield f"W_dec.{layer}", Calibration(part, target, before if layer else None)
            missed[:, columns] += given - decode(part, matrix.rows())


@full_precision
def _product(x_BD: Tensor, W_ED: Tensor) -> Tensor:
    return x_BD @ W_ED.T
