"""What a cross-layer transcoder holds, layer by layer, and what is asked of that.

Shapes: L layers, D width in, E width out, F latents of a layer. A list has one entry for each layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from qsae_core.coders import (
    OFF,
    TRANSCODER_BIAS_RATE,
    CalibratedCoder,
    LevelRules,
    Normalization,
    QuantizedMatrix,
    QuantizedValues,
    check_gates,
    unit_rows,
)
from qsae_core.contracts import Activation, CoderShape, Parts, SparseCodes, SparsityRule
from qsae_core.errors import ConfigError
from qsae_core.kernels import refusal_to_screen
from qsae_transcoder_cross_layer import CrossLayerConfig

ENCODER_NORM = 0.1
"""Of the encoder's rows at the start: at norm 1 a token's latents add up to more than the token."""


class LayerMatrices(CalibratedCoder):
    """A coder with an encoder, a decoder, a rule, an activation and a code quantizer for each layer.

    Latents of layer l are ``[l F, (l + 1) F)``; their ``W_enc.l`` is ``[F, D]``, ``W_dec.l`` is
    ``[F, (L - l) E]``, ``b_dec`` is ``[L E]`` and ``W_skip``, where the config asks for it, ``[L, E, D]``.
    What is computed with them is the subclass's business.
    """

    reads_layers = True
    normalizes_layers = True
    is_autoencoder = False
    config: CrossLayerConfig
    sparsity: LevelRules

    def __init__(self, config: CrossLayerConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        n_layers, size = shape.layers_in, latents_of_a_layer(config.n_latents, shape)
        self.ends = [size * (layer + 1) for layer in range(n_layers)]
        widths = [(n_layers - layer) * shape.d_out for layer in range(n_layers)]
        self.W_enc, self.W_dec = nn.ModuleList(), nn.ModuleList()
        for width in widths:
            enc = unit_rows(size, shape.d_in, slice(0, size), ENCODER_NORM)
            dec = unit_rows(size, width, slice(0, size))
            quantizers = parts.encoder_quantizer((size, shape.d_in)), parts.quantizer((size, width))
            self.W_enc.append(QuantizedMatrix(enc, quantizers[0]))
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

    @property
    def has_skip(self) -> bool:
        """Whether there is a ``W_skip``."""
        return self.W_skip is not None

    @property
    def dictionary_size(self) -> int:
        """Latents of a layer."""
        return self.ends[0]

    def unit_norm_matrices(self) -> list[QuantizedMatrix]:
        """The decoders."""
        return self._decoders

    def rate_factors(self) -> Mapping[str, float]:
        """That of the encoders' biases."""
        return {"b_enc": TRANSCODER_BIAS_RATE}

    def spaces(self) -> Mapping[str, tuple[Normalization, ...]]:
        """Of all matrices and ``b_dec``."""
        layers = range(len(self.ends))
        found: dict[str, tuple[Normalization, ...]] = {f"W_enc.{n}.weight": (self.norm_in,) for n in layers}
        found |= {f"W_dec.{n}.weight": (self.norm_target,) for n in layers}
        skip = {"W_skip": (self.norm_target, self.norm_in)} if self.has_skip else {}
        return {**found, "b_dec": (self.norm_target,), **skip}

    # --- what is asked of a trained coder

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

    # --- the parts, as what they are

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
