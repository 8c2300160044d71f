"""A cross-layer transcoder over the data's own vectors, as other libraries' files hold it, and back.

Shapes: L layers, D width in, E width out, F latents of a layer.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from qsae_core.coders import (
    Normalization,
    QuantizedMatrix,
    QuantizedValues,
    by_rows,
    in_shared_words,
    no_dense_form,
    threshold_of,
)
from qsae_core.contracts import CrossLayerForm, Form, Function, Kept, LayerForm, Pointwise
from qsae_core.errors import ConfigError
from qsae_transcoder_cross_layer.layers import LayerMatrices

ROWS_AT_ONCE = 4096
FUNCTIONS = ("relu", "identity", "jumprelu")


class FormedLayers(LayerMatrices):
    """Layers that say what they compute on the data's own vectors, and become what a form describes."""

    @torch.no_grad()
    def form(self) -> CrossLayerForm:
        """Normalisation and rotation go into the matrices, in float64: with a mean m and a scale s of each
        layer, ``W_enc / s``, ``b_enc - W_enc m / s``, ``t W_dec``, ``t b_dec + n``.

        Raises:
            ConfigError: if its parts have no name elsewhere.
        """
        quantizers = [cast(QuantizedValues, values).quantizer for values in self.code_quantizer]
        if not all(quantizer.is_identity for quantizer in quantizers):
            raise no_dense_form(self, "the values of its codes are quantized")
        parts = zip(self._activations, self.sparsity.each, strict=True)
        named = [in_shared_words(self, *of_layer) for of_layer in parts]
        found = [self._layer_form(number, *words) for number, words in enumerate(named)]
        (function,) = {function for _, function in found}
        form = CrossLayerForm(tuple(layer for layer, _ in found), function, named[0][1].largest)
        form.validate()
        return form

    def _layer_form(self, number: int, point: Pointwise, kept: Kept) -> tuple[LayerForm, Function]:
        """A layer's part, and the function that its activation is with its rule."""
        if point.function not in FUNCTIONS:
            raise no_dense_form(self, f"there is no cross-layer transcoder with {point.function} latents")
        ones_F = torch.ones(self.ends[0], dtype=torch.float64)
        above_F = threshold_of(kept, point.function, point.threshold, ones_F)
        threshold = point.threshold if above_F is None else above_F
        W_skip = None if self.W_skip is None else self.W_skip[number].detach().double()
        biases = self._b_enc[number].detach().double(), self.b_dec.detach().double()
        b_enc, b_dec = biases[0], biases[1].unflatten(0, (-1, self.shape.d_out))[number]
        norms = copy.deepcopy(self.norm_in).double(), copy.deepcopy(self.norm_target).double()
        layer = _in_data(norms, number, self._encoders[number], b_enc, self._decoders[number], b_dec, W_skip)
        layer = replace(layer, threshold=None if threshold is None else _stored(threshold))
        return layer, point.function if above_F is None else "jumprelu"

    @torch.no_grad()
    def take_form(self, form: Form) -> None:
        """As MatrixCoder, of a cross-layer form."""
        if not isinstance(form, CrossLayerForm):
            raise ConfigError("a cross-layer transcoder has an encoder and a decoder for each layer")
        self.eval()
        widths = self.b_dec.view(len(form.layers), -1)
        for number, layer in enumerate(form.layers):
            self._encoders[number].take(layer.W_enc)
            self._decoders[number].take(layer.W_dec.flatten(1))
            self.b_enc[self._range(number)] = layer.b_enc.float()
            widths[number] = layer.b_dec
            if layer.W_skip is not None and self.W_skip is not None:
                self.W_skip[number] = layer.W_skip
            point = self._activations[number].pointwise()
            if point is not None and point.function == form.activation:
                self._activations[number].take(Pointwise(form.activation, layer.threshold))


def _in_data(
    norms: tuple[Normalization, Normalization],
    number: int,
    encoder: QuantizedMatrix,
    b_enc: Tensor,
    decoder: QuantizedMatrix,
    b_dec: Tensor,
    W_skip: Tensor | None,
) -> LayerForm:
    """A layer's normalised parameters as those of the data's space; where nothing is normalised, themselves.

    Args:
        norms: of source and target, in float64.
        decoder: ``[F, (L - l) E]``.
    """
    source, target = norms
    mean, scale, width = source.mean[number], source.scale[number], len(b_dec)

    def read(rows: Tensor) -> Tensor:
        return source.unrotated(rows) / scale

    def written(rows: Tensor) -> Tensor:
        return (target.unrotated(rows.unflatten(1, (-1, width))) * target.scale[number:]).flatten(1)

    changes = source.changes or target.changes
    W_enc = by_rows(read if changes else None, encoder)
    W_dec = by_rows(written if changes else None, decoder)
    if changes:
        b_enc = b_enc - torch.cat([rows.double() @ mean for rows in W_enc.split(ROWS_AT_ONCE)])
        b_dec = target.unrotated(b_dec) * target.scale[number] + target.mean[number]
    if changes and W_skip is not None:
        W_skip = (target.unrotated(read(W_skip).T) * target.scale[number]).T
        b_dec = b_dec - W_skip @ mean
    skip = None if W_skip is None else _stored(W_skip)
    return LayerForm(W_enc, _stored(b_enc), W_dec.unflatten(1, (-1, width)), _stored(b_dec), W_skip=skip)


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().contiguous()
