"""Products with packed codes, ``points[code] * scale``. Shapes: B tokens, F rows, D width, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_kernels_cpu.arguments import address, codes
from qsae_kernels_cpu.library import compiled

_LANES = 16


def lookup_pack(codes_FD: Tensor, bits: int) -> Tensor:
    """uint8 ``[F, bytes]``: codes of 1, 2, 4 or 8 bits in the order that the products read."""
    if bits not in (1, 2, 4, 8):
        raise ValueError(f"lookup_pack: bits must be 1, 2, 4 or 8, this is {bits}")
    rows, width = codes_FD.shape
    words = torch.empty(rows, _row_bytes(width, bits), dtype=torch.uint8)
    compiled("lookup_pack")(
        address("codes", codes_FD, torch.uint8, (rows, width)),
        words.data_ptr(),
        rows,
        width,
        words.shape[1],
        bits,
        torch.get_num_threads(),
    )
    return words


def lookup_product(
    words: Tensor,
    points_G: Tensor,
    scales_F: Tensor,
    width: int,
    bits: int,
    indices_N: Tensor,
    offsets_B1: Tensor,
    values_N: Tensor,
) -> Tensor:
    """``[B, D]``: ``sparse_product`` with the matrix ``points[code] * scale``, the same bits."""
    batch = offsets_B1.numel() - 1
    entries = codes(indices_N, offsets_B1, batch)
    out = values_N.new_empty(batch, width)
    compiled("lookup_product")(
        *matrix_addresses(words, points_G, scales_F, width, bits),
        *entries,
        address("values", values_N, torch.float32, (indices_N.numel(),)),
        out.data_ptr(),
        batch,
        torch.get_num_threads(),
    )
    return out


def lookup_gather_dot(
    words: Tensor,
    points_G: Tensor,
    scales_F: Tensor,
    width: int,
    bits: int,
    left_BD: Tensor,
    indices_N: Tensor,
    offsets_B1: Tensor,
) -> Tensor:
    """``[N]``: ``gather_dot`` with the matrix ``points[code] * scale``, the same bits."""
    batch = left_BD.shape[0]
    entries = codes(indices_N, offsets_B1, batch)
    out = left_BD.new_empty(indices_N.numel())
    compiled("lookup_gather_dot")(
        *matrix_addresses(words, points_G, scales_F, width, bits),
        address("left", left_BD, torch.float32, (batch, width)),
        *entries,
        out.data_ptr(),
        batch,
        torch.get_num_threads(),
    )
    return out


def _row_bytes(width: int, bits: int) -> int:
    """Bytes of a packed row: whole vectors of 64, of 16 where a code is a byte."""
    columns = _LANES * (1 if bits == 8 else 32 // bits)
    return -(-width // columns) * columns * bits // 8


def matrix_addresses(
    words: Tensor, points: Tensor, scales: Tensor, width: int, bits: int
) -> tuple[int, int, int, int, int, int, int]:
    """A packed matrix as the library takes it."""
    rows, n_points = scales.numel(), points.numel()
    if not 1 <= n_points <= 2**bits:
        raise ValueError(f"{bits}-bit codes number up to {2**bits} points, these are {n_points}")
    return (
        address("words", words, torch.uint8, (rows, _row_bytes(width, bits))),
        address("points", points, torch.float32, (n_points,)),
        n_points,
        address("scales", scales, torch.float32, (rows,)),
        width,
        words.shape[1],
        bits,
    )
