"""A whole encoding or decoding in one call. Shapes: B tokens, F latents, D width, N entries."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.kernels import LookupRows, Space, Weights
from qsae_kernels_cpu.arguments import address, raise_if
from qsae_kernels_cpu.library import compiled, library
from qsae_kernels_cpu.lookup import matrix_addresses
from qsae_kernels_cpu.selection import prepared_addresses

_REFUSED, _WRONG_OFFSETS = 2, 3


class Prepared(NamedTuple):
    """A coder as the library reads it."""

    at: int
    """The address of its addresses."""
    width: int
    kept: tuple[object, ...]
    """What these point to, and they themselves."""


def fused_encoder(
    bias_F: Tensor,
    offset_D: Tensor | None,
    importance_F: Tensor | None,
    space: Space,
    weights: Weights,
    prepared: tuple[Tensor, ...],
) -> Prepared:
    """What ``fused_encode`` reads: the addresses of these tensors."""
    (n,), width = bias_F.shape, space.mean.numel()
    fields = [
        *_space(space),
        *_matrix(weights, n, width),
        address("bias", bias_F, torch.float32, (n,)),
        0 if offset_D is None else address("offset", offset_D, torch.float32, (width,)),
        0 if importance_F is None else address("importance", importance_F, torch.float32, (n,)),
        *prepared_addresses(prepared, n, width),
        library().level,
    ]
    return _prepared(fields, width, bias_F, offset_D, importance_F, space, weights, prepared)


def fused_encode(encoder: Prepared, x_BD: Tensor, k: int, m: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Indices and pre-activations ``[B k]`` of the k largest of m candidates, offsets; None: not finite."""
    batch = x_BD.shape[0]
    at = address("x", x_BD, torch.float32, (batch, encoder.width))
    indices = torch.empty(batch * k, dtype=torch.int32)
    pre_acts = torch.empty(batch * k, dtype=torch.float32)
    offsets = torch.empty(batch + 1, dtype=torch.int64)
    status = compiled("fused_encode")(
        encoder.at,
        at,
        indices.data_ptr(),
        pre_acts.data_ptr(),
        offsets.data_ptr(),
        batch,
        k,
        m,
        torch.get_num_threads(),
    )
    if status == _REFUSED:
        return None
    raise_if(status)
    return indices, pre_acts, offsets


def fused_decoder(bias_D: Tensor, space: Space, weights: Weights) -> Prepared:
    """What ``fused_decode`` reads: the addresses of these tensors."""
    width = space.mean.numel()
    n = weights.shape[0] if isinstance(weights, Tensor) else weights[2].numel()
    bias = address("bias", bias_D, torch.float32, (width,))
    fields = [*_space(space), *_matrix(weights, n, width), bias, library().level]
    return _prepared(fields, width, bias_D, space, weights)


def fused_decode(decoder: Prepared, indices_N: Tensor, offsets_B1: Tensor, values_N: Tensor) -> Tensor | None:
    """``[B, D]`` in the data's space; None where an index names no row, or types are others."""
    batch, entries = offsets_B1.numel() - 1, indices_N.numel()
    if not (
        indices_N.dtype is torch.int32
        and offsets_B1.dtype is torch.int64
        and values_N.dtype is torch.float32
        and indices_N.is_contiguous()
        and offsets_B1.is_contiguous()
        and values_N.is_contiguous()
        and indices_N.is_cpu
        and offsets_B1.is_cpu
        and values_N.is_cpu
    ):
        return None
    if values_N.numel() != entries:
        raise ValueError(f"{values_N.numel()} values for {entries} indices")
    out = torch.empty((batch, decoder.width), dtype=torch.float32)
    status = compiled("fused_decode")(
        decoder.at,
        indices_N.data_ptr(),
        offsets_B1.data_ptr(),
        values_N.data_ptr(),
        out.data_ptr(),
        batch,
        entries,
        torch.get_num_threads(),
    )
    if status == 0:
        return out
    if status == _WRONG_OFFSETS:
        raise ValueError(f"offsets do not ascend from 0 to the {entries} entries")
    raise_if(status != _REFUSED)
    return None


def _prepared(fields: list[int], width: int, *kept: object) -> Prepared:
    table = torch.tensor(fields, dtype=torch.int64)
    return Prepared(table.data_ptr(), width, (table, *kept))


def _space(space: Space) -> tuple[int, ...]:
    """The fields of a ``Space`` of the library."""
    (blocks, _), (size, _) = space.left.shape, space.right.shape
    width = blocks * size
    return (
        address("mean", space.mean, torch.float32, (width,)),
        address("scale", space.scale, torch.float32, ()),
        address("rotated", space.rotated, torch.bool, ()),
        address("signs", space.signs, torch.int8, (width,)),
        address("left", space.left, torch.float32, (blocks, blocks)),
        address("right", space.right, torch.float32, (size, size)),
        blocks,
        size,
    )


def _matrix(weights: Weights, n: int, width: int) -> tuple[int, ...]:
    """The fields of a ``Matrix`` of the library."""
    if isinstance(weights, Tensor):
        return address("weights", weights, torch.float32, (n, width)), 0, 0, 0, 0, 0, n
    packed: LookupRows = weights
    words, points, n_points, scales, _, row_bytes, bits = matrix_addresses(*packed)
    return words, points, scales, n_points, row_bytes, bits, n
