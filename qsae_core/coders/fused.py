"""Serving a restored linear coder by one fused operation to encode and one to decode.

When they serve is said in ``fusable``; elsewhere the operations run one by one, and the results are the same
bits. What a call reads is looked up once for a coder, and anew where any of it has been replaced.

Shapes: B tokens, E width of the output, F latents, N entries.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from qsae_core.coders.fusable import Linear, candidates, refusal_to_fuse_decoding, refusal_to_fuse_encoding
from qsae_core.coders.normalization import Normalization
from qsae_core.contracts.codes import SparseCodes
from qsae_core.kernels import Kind, Rows, Space
from qsae_core.kernels.dispatch import current
from qsae_core.kernels.products import DENSE_SHARE


class Source(NamedTuple):
    """What a fused operation was made of: it serves as long as the coder has just that."""

    matrix: str
    norm: str
    bias: str
    """Names within the coder, of what belongs together."""
    rows: Rows
    places: list[int]
    """Addresses of the tensors that are read at each call."""

    @classmethod
    def of(cls, coder: Linear, matrix: str, norm: str, bias: str) -> Source:
        """As the coder is now."""
        return cls(matrix, norm, bias, coder._modules[matrix].rows(), _places(coder, norm, bias))

    def holds(self, coder: Linear) -> bool:
        """Whether nothing of it has been replaced."""
        same_rows = coder._modules[self.matrix].rows() is self.rows
        return same_rows and _places(coder, self.norm, self.bias) == self.places


def _places(coder: Linear, norm: str, bias: str) -> list[int]:
    parameters = coder._parameters  # past nn.Module's look-up, which takes longer than all of this
    tensors = (*coder._modules[norm]._buffers.values(), parameters[bias], parameters["b_dec"])
    return list(map(Tensor.data_ptr, tensors))


class FusedEncoder(NamedTuple):
    """Encodes by one operation."""

    source: Source
    screen: Kind
    k: int | None
    """Entries a token."""
    refusal: str | None
    """Why it does not serve; what follows is empty then."""
    parameters: tuple[nn.Parameter, ...] = ()
    run: Any = None
    """The implementation of ``fused_encode``."""
    prepared: Any = None
    """What it reads."""
    m: int = 0
    """Candidates a token."""
    width: int = 0

    def holds(self, coder: Linear) -> bool:
        """Whether nothing that it was made of has been replaced."""
        same_search = coder.screen == self.screen and coder._modules["sparsity"].fixed_k == self.k
        return same_search and self.source.holds(coder)

    def serves(self, x: Any) -> bool:
        """Whether these vectors are encoded so: no gradient is asked for."""
        return self.refusal is None and type(x) is Tensor and not _needs_gradient(x, self.parameters)

    def encode(self, coder: Linear, x: Tensor) -> SparseCodes:
        """The codes, before their values are quantized.

        Raises:
            DataError: as ``read``.
        """
        plain = x.dtype is torch.float32 and x.dim() == 2 and x.shape[1] == self.width and x.is_cpu
        if not (plain and x.is_contiguous()):
            x = coder.read(x).contiguous()
        found = self.run(self.prepared, x, self.k, self.m)
        if found is None:
            coder.read(x)  # raises, and says which rows
            raise AssertionError("vectors that are finite and are not")
        indices, pre_acts, offsets = found
        return SparseCodes(indices, coder.activation(pre_acts, indices), offsets, coder.n_latents, self.k)


class FusedDecoder(NamedTuple):
    """Decodes by one operation; fields as of ``FusedEncoder``."""

    source: Source
    refusal: str | None
    parameters: tuple[nn.Parameter, ...] = ()
    run: Any = None
    prepared: Any = None

    def serves(self, codes: Any, n_latents: int) -> bool:
        """Whether these codes are decoded so: sparse ones of the coder, and no gradient is asked for."""
        if self.refusal is not None or type(codes) is not SparseCodes or codes.n_latents != n_latents:
            return False
        most = DENSE_SHARE * (codes.offsets.numel() - 1) * n_latents
        return codes.indices.numel() <= most and not _needs_gradient(codes.values, self.parameters)

    def decode(self, codes: SparseCodes) -> Tensor | None:
        """``[B, E]`` in the data's space; None for codes of other types than coders give, and for those that
        name a latent that there is not: the operations one by one read the ones and refuse the others."""
        decoded: Tensor | None = self.run(self.prepared, codes.indices, codes.offsets, codes.values)
        return decoded


def fused_encoder(coder: Linear, base: type) -> FusedEncoder | None:
    """What encodes for a coder now; None where it is not a restored one in evaluation mode.

    Args:
        base: the class whose ``encode`` asks.
    """
    if coder.training:
        return None
    kept = coder.served_encoder
    if kept is not None and kept.holds(coder):
        return kept
    if not (coder.W_enc.is_restored and coder.W_dec.is_restored):
        return None
    source = Source.of(coder, "W_enc", "norm_in", "b_enc")
    refusal = refusal_to_fuse_encoding(coder, base)
    unserved = FusedEncoder(source, coder.screen, coder.sparsity.fixed_k, refusal)
    coder.served_encoder = unserved if refusal else _encoder(coder, unserved)
    return coder.served_encoder


def fused_decoder(coder: Linear, base: type) -> FusedDecoder | None:
    """What decodes for a coder now, as ``fused_encoder``."""
    if coder.training:
        return None
    kept = coder.served_decoder
    if kept is not None and kept.source.holds(coder):
        return kept
    if not coder.W_dec.is_restored:
        return None
    norm = "norm_in" if coder.norm_out is coder.norm_in else "norm_target"
    source = Source.of(coder, "W_dec", norm, "b_dec")
    refusal = refusal_to_fuse_decoding(coder, base)
    coder.served_decoder = FusedDecoder(source, refusal) if refusal else _decoder(coder, source)
    return coder.served_decoder


def _needs_gradient(tensor: Tensor, parameters: tuple[nn.Parameter, ...]) -> bool:
    """Whether autograd is to follow what is computed from a tensor and these parameters."""
    if not torch.is_grad_enabled():
        return False
    return tensor.requires_grad or any(parameter.requires_grad for parameter in parameters)


def _encoder(coder: Linear, unserved: FusedEncoder) -> FusedEncoder:
    bias, offset, norm = coder.b_enc.detach(), coder.encoder_offset, coder.norm_in
    prepared = current("fused_encoder", bias)(
        bias,
        None if offset is None else offset.detach(),
        None if coder.unit_norm_rows else coder.W_dec.rows().norms().detach(),
        _space(norm),
        unserved.source.rows.fusable(),
        unserved.source.rows.screen("int8").prepared,
    )
    return unserved._replace(
        parameters=tuple(coder.parameters()),
        run=current("fused_encode", bias),
        prepared=prepared,
        m=candidates(coder),
        width=norm.signs.numel(),
    )


def _decoder(coder: Linear, source: Source) -> FusedDecoder:
    bias = coder.b_dec.detach()
    prepared = current("fused_decoder", bias)(bias, _space(coder.norm_out), source.rows.fusable())
    return FusedDecoder(source, None, tuple(coder.parameters()), current("fused_decode", bias), prepared)


def _space(norm: Normalization) -> Space:
    """A normalisation as the fused operations read it: the same memory."""
    tensors = (norm.mean, norm.scale, norm.rotated, norm.signs, norm.left, norm.right)
    return Space(*(tensor.detach() for tensor in tensors))
