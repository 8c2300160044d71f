"""A whole encoding or decoding of served coders in one operation, for batches so small that calls cost most.

Shapes: B tokens, F latents, D width, K entries and m candidates a token, N entries.

Each is what the operations one by one give, bit for bit: normalise, subtract, screen, compute the candidates
exactly, keep the k largest; or sum the rows, add the bias, undo the normalisation.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from qsae_core.kernels.dispatch import installed, operation
from qsae_core.kernels.gather_dot import gather_dot
from qsae_core.kernels.lookup import lookup_gather_dot, lookup_product
from qsae_core.kernels.rotation import rotate, unrotate
from qsae_core.kernels.screening import screen
from qsae_core.kernels.sparse_product import sparse_product
from qsae_core.kernels.top_k import top_k

LookupRows: TypeAlias = "tuple[Tensor, Tensor, Tensor, int, int]"
"""What the ``lookup`` operations take first: words, points, scales, width, bits."""
Weights: TypeAlias = "Tensor | LookupRows"
"""A matrix: floats ``[F, D]``, or codes."""


class Space(NamedTuple):
    """A normalised space, ``((x - mean) / scale)`` rotated; read at each call."""

    mean: Tensor
    """``[D]``"""
    scale: Tensor
    """``[]``"""
    rotated: Tensor
    """bool ``[]``: whether there is a rotation at all."""
    signs: Tensor
    """int8 ``[D]``; this and the next two as ``rotate`` takes them."""
    left: Tensor
    right: Tensor


class Encoder(NamedTuple):
    """The arguments of ``fused_encoder``, which torch's implementation keeps as they are."""

    bias: Tensor
    offset: Tensor | None
    importance: Tensor | None
    space: Space
    weights: Weights
    screen: tuple[Tensor, ...]


class Decoder(NamedTuple):
    """The arguments of ``fused_decoder``, which torch's implementation keeps as they are."""

    bias: Tensor
    space: Space
    weights: Weights


@operation
def fused_encoder(
    bias_F: Tensor,
    offset_D: Tensor | None,
    importance_F: Tensor | None,
    space: Space,
    weights: Weights,
    prepared: tuple[Tensor, ...],
) -> Any:
    """What ``fused_encode`` reads; what is in it is the implementation's own business.

    Whatever it keeps are the tensors themselves: what is written into them later counts.

    Args:
        offset_D, importance_F: as ``encode`` takes them.
        prepared: from ``screen_prepare`` of the same matrix.
    """
    return Encoder(bias_F, offset_D, importance_F, space, weights, prepared)


@operation
def fused_encode(encoder: Any, x_BD: Tensor, k: int, m: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """int32 ``[B K]`` indices, ascending within a token; their pre-activations; int64 ``[B + 1]`` offsets.

    The k largest of m candidates for each vector of the data's space; None where one is not finite.
    """
    if not bool(x_BD.isfinite().all()):
        return None
    bias, offset, importance, space, weights, prepared = encoder
    z_BD = (x_BD - space.mean) / space.scale
    if space.rotated:
        z_BD = rotate(z_BD, space.signs, space.left, space.right)
    if offset is not None:
        z_BD = z_BD - offset
    batch, n = x_BD.shape[0], bias.numel()
    indices_Bm = torch.arange(n, dtype=torch.int32).repeat(batch, 1)
    if m < n:
        indices_Bm = screen(prepared, z_BD, bias, importance, m)
    flat, starts = indices_Bm.view(-1), torch.arange(0, batch * m + 1, m)
    pre_Bm = (_dots(weights, z_BD, flat, starts) + bias[flat]).view(batch, m)
    place_BK = top_k(pre_Bm if importance is None else pre_Bm * importance[indices_Bm], k)[1].long()
    indices_BK, order_BK = indices_Bm.gather(1, place_BK).sort(dim=1)
    pre_BK = pre_Bm.gather(1, place_BK.gather(1, order_BK))
    return indices_BK.view(-1), pre_BK.view(-1), torch.arange(0, batch * k + 1, k)


@operation
def fused_decoder(bias_D: Tensor, space: Space, weights: Weights) -> Any:
    """What ``fused_decode`` reads, as ``fused_encoder``."""
    return Decoder(bias_D, space, weights)


@operation
def fused_decode(decoder: Any, indices_N: Tensor, offsets_B1: Tensor, values_N: Tensor) -> Tensor | None:
    """``[B, D]`` in the data's space; None where an index names no row, or these are not contiguous int32,
    int64 and float32 tensors of the decoder's device."""
    bias, space, weights = decoder
    n = weights.shape[0] if isinstance(weights, Tensor) else weights[2].numel()
    types = ((indices_N, torch.int32), (offsets_B1, torch.int64), (values_N, torch.float32))
    if not all(t.dtype == dtype and t.is_contiguous() and t.device == bias.device for t, dtype in types):
        return None
    if indices_N.numel() and not (int(indices_N.min()) >= 0 and int(indices_N.max()) < n):
        return None
    z_BD = _product(weights, indices_N, offsets_B1, values_N) + bias
    if space.rotated:
        z_BD = unrotate(z_BD, space.signs, space.left, space.right)
    return z_BD * space.scale + space.mean


def _dots(weights: Weights, left_BD: Tensor, indices_N: Tensor, offsets_B1: Tensor) -> Tensor:
    if isinstance(weights, Tensor):
        return gather_dot(left_BD, weights, indices_N, offsets_B1)
    return lookup_gather_dot(*weights, left_BD, indices_N, offsets_B1)


def _product(weights: Weights, indices_N: Tensor, offsets_B1: Tensor, values_N: Tensor) -> Tensor:
    if isinstance(weights, Tensor):
        return sparse_product(indices_N, offsets_B1, values_N, weights)
    return lookup_product(*weights, indices_N, offsets_B1, values_N)


ENCODES_WITH = (
    "fused_encoder",
    "fused_encode",
    "rotate",
    "screen_prepare",
    "screen",
    "lookup_pack",
    "lookup_gather_dot",
    "gather_dot",
    "top_k",
)
DECODES_WITH = (
    "fused_decoder",
    "fused_decode",
    "unrotate",
    "lookup_pack",
    "lookup_product",
    "sparse_product",
)
"""Operations that are compiled together, or not used fused: their layouts and their bits belong together."""


def compiled_together(names: tuple[str, ...], device: str) -> bool:
    """Whether a kernel set that is active has all of these."""
    return all(installed(name, device) for name in names)
