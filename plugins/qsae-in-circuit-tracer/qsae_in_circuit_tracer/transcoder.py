"""PackedTranscoder: a layer's transcoder of circuit-tracer around a coder of qsae, whose weights stay packed.

Shapes: D width of both sides, F latents, B tokens, N entries; ``...`` any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import torch
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder
from torch import Tensor

from qsae_core.coders import LinearCoder
from qsae_core.contracts import SparseCodes
from qsae_core.kernels import encode, full_precision
from qsae_in_circuit_tracer.latents import NOT_WRITTEN, LatentsOf, as_rows, unpacked


class PackedTranscoder(SingleLayerTranscoder):  # type: ignore[misc]  # circuit_tracer has no types here
    """Latents and reconstructions of a coder as ``qsae_core.load`` gives it, bit for bit in float32.

    To circuit-tracer it is a transcoder with lazy weights: of the decoder the rows of active latents are
    unpacked, of the encoder those and, for one product at a time, all. Only ``b_enc``, ``b_dec`` and
    ``W_skip``, over the vectors as the model has them, are parameters; casts reach these, and the type of
    what goes in and out. The coder computes in float32 whatever that is.

    Args:
        coder: one that ``check_serves`` has nothing against.
        layer: of the model.
        folder: where it was loaded from.
        dtype: of what goes in and out.
    """

    def __init__(self, coder: LinearCoder, layer: int, folder: str, dtype: torch.dtype) -> None:
        super().__init__(
            d_model=coder.shape.d_in,
            d_transcoder=coder.n_latents,
            activation_function=_latents_of(coder),
            layer_idx=layer,
            skip_connection=coder.has_skip,
            transcoder_path=folder,
            lazy_encoder=True,
            lazy_decoder=True,
            device=coder.device,
            dtype=dtype,
        )
        self.__dict__["_coder"] = coder  # no submodule: casts would reach it
        with torch.no_grad():
            # biases are what zeros give
            zeros_BD = torch.zeros(1, self.d_model, device=coder.device)
            self.b_enc.copy_(self._pre_acts(zeros_BD)[0])
            past_BD = coder.skipped_past(coder.b_dec[None], coder.normalized(zeros_BD))
            self.b_dec.copy_(coder.norm_out.inverse(past_BD)[0])
            if coder.W_skip is not None:
                # of normalised vectors there, and of the model's own here
                read_ED = coder.norm_in.unrotated(coder.W_skip) / coder.norm_in.scale
                self.W_skip.copy_(coder.norm_out.inverse_direction(read_ED.T).T)

    @property
    def coder(self) -> LinearCoder:
        """The coder of qsae."""
        found: LinearCoder = self.__dict__["_coder"]
        return found

    # --- weights, made anew whenever they are asked for, and kept nowhere

    @property
    def W_enc(self) -> Tensor:
        """``[F, D]``: pre-activations are ``W_enc x + b_enc``."""
        return self._get_encoder_vectors()

    @property
    def W_dec(self) -> Tensor:
        """``[F, D]``."""
        return self._get_decoder_vectors()

    @torch.no_grad()
    def _get_encoder_vectors(self, feat_ids: Tensor | None = None) -> Tensor:
        """``[N, D]``: those of these latents; of all."""
        rows = unpacked(self.coder.W_enc, feat_ids)
        return (self.coder.norm_in.unrotated(rows) / self.coder.norm_in.scale).to(self.dtype)

    @torch.no_grad()
    def _get_decoder_vectors(self, feat_ids: Tensor | None = None) -> Tensor:
        """``[N, D]``: those of these latents; of all."""
        return self.coder.norm_out.inverse_direction(unpacked(self.coder.W_dec, feat_ids)).to(self.dtype)

    # --- what circuit-tracer computes with whole matrices

    @torch.no_grad()
    def encode(self, input_acts: Tensor, apply_activation_function: bool = True) -> Tensor:
        """``[..., D]`` -> ``[..., F]``: dense latents, or what is before their activation."""
        x_BD = as_rows(input_acts)
        acts_BF = self._latents(x_BD) if apply_activation_function else self._pre_acts(x_BD)
        return acts_BF.to(self.dtype).view(*input_acts.shape[:-1], -1)

    def encode_sparse(self, input_acts: Tensor, zero_positions: slice = slice(0, 1)) -> tuple[Tensor, Tensor]:
        """``[B, D]`` -> sparse ``[B, F]`` with nothing at some positions, and ``[N, D]``, the encoder's
        vectors of its entries."""
        acts_BF = self.encode(input_acts)
        acts_BF[zero_positions] = 0
        sparse_acts = acts_BF.to_sparse()
        return sparse_acts, self._get_encoder_vectors(sparse_acts.indices()[1])

    def decode(self, acts: Tensor, input_acts: Tensor | None = None) -> Tensor:
        """``[..., F]`` -> ``[..., D]``, with the skip connection of ``input_acts``."""
        dense = acts.to_dense() if acts.is_sparse else acts
        decoded_BD = self.coder.decode(self._codes(as_rows(dense), input_acts))
        return decoded_BD.to(self.dtype).view(*acts.shape[:-1], -1)

    def to_safetensors(self, save_path: str) -> NoReturn:
        """Refused: its weights are in qsae's own files.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(NOT_WRITTEN)

    def _latents(self, x_BD: Tensor) -> Tensor:
        """As the coder encodes, but that its encoder is floats for this product alone."""
        coder, rules = self.coder, self.activation_function
        codes: SparseCodes = coder.code_quantizer(
            encode(
                coder.normalized(x_BD),
                coder.W_enc(),
                coder.b_enc,
                coder.activation,
                coder.sparsity,
                importance_F=rules.importance(),
                offset_D=coder.encoder_offset,
            )
        )
        return codes.to_dense()

    @full_precision
    def _pre_acts(self, x_BD: Tensor) -> Tensor:
        W_enc = self.coder.W_enc()
        return torch.addmm(self.coder.encoder_bias(W_enc), self.coder.normalized(x_BD), W_enc.T)

    def _codes(self, acts_BF: Tensor, input_acts: Tensor | None) -> SparseCodes:
        codes = SparseCodes.from_dense(acts_BF)
        if input_acts is None or not self.coder.has_skip:
            return codes
        return replace(codes, inputs=as_rows(input_acts))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedTranscoder:
        """The coder follows to a device, and stays where parameters are put away on disk."""
        super()._apply(fn, recurse)
        if self.b_dec.device.type != "meta":
            self.coder.to(self.b_dec.device)
        return self


def _latents_of(coder: LinearCoder) -> LatentsOf:
    def importance() -> Tensor | None:
        return None if coder.unit_norm_rows else coder.W_dec.rows().norms()

    return LatentsOf(coder.activation, coder.sparsity, coder.code_quantizer, importance)
