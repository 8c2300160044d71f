"""Products with a matrix of packed codes: ``points[code] * scale`` of a row.

Shapes: B tokens, F rows, D width, N entries, G points. As fast operations these exist in compiled form alone:
torch has no instruction that reads codes below 8 bits, and unpacks the rows that are named instead
(``PackedRows``). A compiled one gives the bits that the product with the unpacked matrix gives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.kernels.dispatch import operation
from qsae_core.kernels.gather_dot import gather_dot
from qsae_core.kernels.sparse_product import sparse_product


@operation
def lookup_pack(codes_FD: Tensor, bits: int) -> Tensor:
    """uint8 ``[F, bytes]``: codes below ``2^bits`` (1, 2, 4 or 8) in an order that the products read fast."""
    return codes_FD


@operation
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
    """``[B, D]``: ``sparse_product`` with the matrix of these codes."""
    return sparse_product(indices_N, offsets_B1, values_N, _expand(words, points_G, scales_F, width))


@operation
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
    """``[N]``: ``gather_dot`` with the matrix of these codes."""
    return gather_dot(left_BD, _expand(words, points_G, scales_F, width), indices_N, offsets_B1)


def _expand(codes_FD: Tensor, points_G: Tensor, scales_F: Tensor, width: int) -> Tensor:
    return points_G[codes_FD[:, :width].int()] * scales_F[:, None]


def lookup_bits(n_points: int) -> int:
    """The least of 1, 2, 4 and 8 bits that number so many points."""
    return next(bits for bits in (1, 2, 4, 8) if n_points <= 2**bits)


def byte_rows(codes_FD: Tensor, points_G: Tensor, scales_F: Tensor) -> Tensor | None:
    """uint8 ``[F, D + 8]``: codes, step and offset as float32 behind them: what torch's own byte bag reads.

    None where the points are not evenly spaced.
    """
    points = points_G.double()
    step = points[1] - points[0] if points.numel() > 1 else torch.ones((), dtype=torch.float64)
    even = points[0] + step * torch.arange(points.numel(), device=points.device)
    if not torch.allclose(points, even, rtol=1e-6, atol=0):
        return None
    tail = torch.stack([scales_F.double() * step, scales_F.double() * points[0]], 1).float()
    return torch.cat([codes_FD, tail.view(torch.uint8)], 1)


def byte_product(rows: Tensor, indices_N: Tensor, offsets_B1: Tensor, values_N: Tensor) -> Tensor:
    """``[B, D]`` from ``byte_rows``: float32 sums, rounded otherwise than those of the unpacked matrix."""
    return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
        rows,
        indices_N.long(),
        offsets_B1,
        False,
        0,
        False,
        values_N,
        None,
        True,
    )
