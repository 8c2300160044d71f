"""The largest entries of rows, and screens. Shapes: B tokens, C rows, F latents, D width, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_kernels_cpu.arguments import address, raise_if
from qsae_kernels_cpu.library import compiled, library


def top_k(scores_CF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``([C, k] values, int32 [C, k] columns)``: the k largest of each row, in any order."""
    rows, width = scores_CF.shape
    if not 0 <= k <= width:
        raise ValueError(f"top_k: k must be between 0 and {width}, this is {k}")
    values, columns = scores_CF.new_empty(rows, k), torch.empty(rows, k, dtype=torch.int32)
    at = address("scores", scores_CF, torch.float32, (rows, width))
    if k:
        raise_if(
            compiled("top_k")(
                at, values.data_ptr(), columns.data_ptr(), rows, width, k, torch.get_num_threads()
            )
        )
    return values, columns


def compress(scores_CF: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Entries above a threshold: int32 ``[N]`` columns, ``[N]`` values, int64 ``[C + 1]`` offsets."""
    rows, width = scores_CF.shape
    at = address("scores", scores_CF, torch.float32, (rows, width))
    offsets = torch.empty(rows + 1, dtype=torch.int64)
    pieces = compiled("compress_begin")(
        at, threshold, offsets.data_ptr(), rows, width, torch.get_num_threads()
    )
    raise_if(not pieces)
    entries = int(offsets[-1])
    columns, values = torch.empty(entries, dtype=torch.int32), scores_CF.new_empty(entries)
    compiled("compress_end")(pieces, offsets.data_ptr(), columns.data_ptr(), values.data_ptr())
    return columns, values, offsets


def screen_prepare(W_FD: Tensor) -> tuple[Tensor, ...]:
    """int8 rows packed for tiles, their scales, and the sums of their bytes."""
    n_latents, width = W_FD.shape
    padded, bytes_of_row = -(-n_latents // 64) * 64, -(-width // 64) * 64
    packed = torch.empty(padded * bytes_of_row, dtype=torch.int8)
    scales, sums = W_FD.new_empty(padded), torch.empty(padded, dtype=torch.int32)
    compiled("screen_prepare")(
        address("W", W_FD, torch.float32, (n_latents, width)),
        packed.data_ptr(),
        scales.data_ptr(),
        sums.data_ptr(),
        n_latents,
        width,
        torch.get_num_threads(),
    )
    return packed, scales, sums


def screen(
    prepared: tuple[Tensor, ...], x_BD: Tensor, bias_F: Tensor, importance_F: Tensor | None, m: int
) -> Tensor:
    """int32 ``[B, m]``: about the m latents with the largest importance * pre-activation of each token."""
    batch, width = x_BD.shape
    n_latents = bias_F.numel()
    if not 0 <= m <= n_latents:
        raise ValueError(f"screen: m must be between 0 and {n_latents}, this is {m}")
    if m == n_latents:
        return torch.arange(n_latents, dtype=torch.int32).repeat(batch, 1)
    out = torch.empty(batch, m, dtype=torch.int32)
    if not out.numel():
        return out
    failed = compiled("screen")(
        *prepared_addresses(prepared, n_latents, width),
        address("x", x_BD, torch.float32, (batch, width)),
        address("bias", bias_F, torch.float32, (n_latents,)),
        None if importance_F is None else address("importance", importance_F, torch.float32, (n_latents,)),
        out.data_ptr(),
        batch,
        width,
        n_latents,
        m,
        library().level,
        torch.get_num_threads(),
    )
    raise_if(failed)
    return out


def prepared_addresses(prepared: tuple[Tensor, ...], n_latents: int, width: int) -> tuple[int, int, int]:
    """What ``screen_prepare`` made of a matrix, as the library takes it."""
    packed, scales, sums = prepared
    padded, bytes_of_row = -(-n_latents // 64) * 64, -(-width // 64) * 64
    return (
        address("prepared codes", packed, torch.int8, (padded * bytes_of_row,)),
        address("prepared scales", scales, torch.float32, (padded,)),
        address("prepared sums", sums, torch.int32, (padded,)),
    )
