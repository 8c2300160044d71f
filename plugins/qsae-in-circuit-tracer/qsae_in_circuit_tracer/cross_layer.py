"""PackedCrossLayerTranscoder: circuit-tracer's cross-layer transcoder around one of qsae, whose weights stay
packed.

Shapes: L layers, D width of both sides, F latents of a layer, N entries; ``...`` any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
from torch import Tensor

from qsae_core.kernels import full_precision
from qsae_in_circuit_tracer.latents import NOT_WRITTEN, LatentsOf, unpacked


class PackedCrossLayerTranscoder(CrossLayerTranscoder):  # type: ignore[misc]  # circuit_tracer has no types here
    """To circuit-tracer it has lazy weights: of decoders the rows of active latents are unpacked, of one
    layer's encoder at a time all. Everything else is circuit-tracer's own, and computes in ``dtype``.

    ``b_enc``, ``b_dec`` and ``W_skip``, over the vectors as the model has them, are parameters; casts reach
    these and no packed weight.

    Args:
        coder: a ``cross-layer-transcoder`` that ``check_serves_layers`` has nothing against.
        folder: where it was loaded from.
        dtype: of what is computed.
        hooks: circuit-tracer's ``feature_input_hook``, ``feature_output_hook`` and ``scan``.
    """

    def __init__(self, coder: Any, folder: str, dtype: torch.dtype, **hooks: Any) -> None:
        n_layers, d = coder.shape.layers_in, coder.shape.d_in
        super().__init__(
            n_layers,
            coder.dictionary_size,
            d,
            skip_connection=coder.has_skip,
            lazy_decoder=True,
            lazy_encoder=True,
            device=coder.device,
            dtype=dtype,
            clt_path=folder,
            **hooks,
        )
        parts = zip(coder.activation, coder.sparsity.each, coder.code_quantizer, strict=True)
        # no submodules: casts would reach them
        self.__dict__.update(_coder=coder, _latents=[LatentsOf(*of_layer) for of_layer in parts])
        with torch.no_grad():
            self._fold(torch.zeros(1, n_layers, d, device=coder.device))

    @full_precision
    def _fold(self, zeros_BLD: Tensor) -> None:
        """Biases are what vectors of zeros, and no latents, give."""
        coder = self.coder
        b_enc, b_dec = coder.b_enc.view(self.n_layers, -1), coder.b_dec.view(self.n_layers, -1).clone()
        for layer, z_BD in enumerate(coder.normalized(zeros_BLD)):
            self.b_enc[layer] = torch.addmv(b_enc[layer], coder.W_enc[layer](), z_BD[0])
            if coder.W_skip is not None:
                b_dec[layer] += coder.W_skip[layer] @ z_BD[0]
                read_ED = coder.norm_in.unrotated(coder.W_skip[layer]) / coder.norm_in.scale[layer]
                # the other way round than that of a single layer: inputs @ W_skip
                self.W_skip[layer] = coder.norm_out.unrotated(read_ED.T) * coder.norm_out.scale[layer]
        self.b_dec.copy_(coder.norm_out.inverse(b_dec))

    @property
    def coder(self) -> Any:
        """The coder of qsae."""
        return self.__dict__["_coder"]

    @torch.no_grad()
    def _get_encoder_weights(self, layer_id: int | None = None) -> Tensor:
        """``[F, D]`` of a layer, ``[L, F, D]`` of all: made anew, and kept nowhere."""
        if layer_id is None:
            return torch.stack([self._get_encoder_weights(layer) for layer in range(self.n_layers)])
        norm, rows_FD = self.coder.norm_in, unpacked(self.coder.W_enc[layer_id], None)
        return (norm.unrotated(rows_FD) / norm.scale[layer_id]).to(self.dtype)

    @torch.no_grad()
    def _get_decoder_vectors(self, layer_id: int, feat_ids: Tensor | None = None) -> Tensor:
        """``[N, L - l, D]``: what these latents of a layer, or all, write into it and all later ones."""
        rows = unpacked(self.coder.W_dec[layer_id], feat_ids).unflatten(1, (-1, self.d_model))
        norm = self.coder.norm_out
        return (norm.unrotated(rows) * norm.scale[layer_id:]).to(self.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """``[L, ..., D]`` -> ``[L, ..., F]``, a layer's encoder at a time."""
        return torch.stack([self.encode_layer(of_layer, layer) for layer, of_layer in enumerate(x)])

    def apply_activation_function(self, layer_id: int, features: Tensor) -> Tensor:
        """``[..., F]`` -> ``[..., F]``: the coder's latents of pre-activations of a layer."""
        latents: LatentsOf = self.__dict__["_latents"][layer_id]
        return latents(features)

    def to_safetensors(self, save_path: str) -> NoReturn:
        """Refused, as of ``PackedTranscoder``.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(NOT_WRITTEN)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedCrossLayerTranscoder:
        """The coder follows to a device, and stays where parameters are put away on disk."""
        super()._apply(fn, recurse)
        if self.b_dec.device.type != "meta":
            self.coder.to(self.b_dec.device)
        return self
