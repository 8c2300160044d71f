"""Products of sparse codes, and codes by latent. Shapes: B tokens, F latents, D width, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_kernels_cpu.arguments import address, codes, raise_if
from qsae_kernels_cpu.library import compiled


def gather_dot(left_BD: Tensor, right_FD: Tensor, indices_N: Tensor, offsets_B1: Tensor) -> Tensor:
    """``[N]``: for each entry (b, j), the dot product of ``left[b]`` and ``right[j]``."""
    batch, width = left_BD.shape
    entries = codes(indices_N, offsets_B1, batch)
    out = left_BD.new_empty(indices_N.numel())
    compiled("gather_dot")(
        address("left", left_BD, torch.float32, (batch, width)),
        address("right", right_FD, torch.float32, (right_FD.shape[0], width)),
        *entries,
        out.data_ptr(),
        batch,
        width,
        torch.get_num_threads(),
    )
    return out


def sparse_product(
    indices_N: Tensor, offsets_B1: Tensor, values_N: Tensor, right_FD: Tensor, out_BD: Tensor | None = None
) -> Tensor:
    """``[B, D]``: each token's sum of values times rows, in order, by fused multiply-adds from zero on."""
    batch, width = offsets_B1.numel() - 1, right_FD.shape[1]
    entries = codes(indices_N, offsets_B1, batch)
    out = right_FD.new_empty(batch, width) if out_BD is None else out_BD
    compiled("sparse_product")(
        *entries,
        address("values", values_N, torch.float32, (indices_N.numel(),)),
        address("right", right_FD, torch.float32, (right_FD.shape[0], width)),
        address("out", out, torch.float32, (batch, width)),
        batch,
        width,
        torch.get_num_threads(),
    )
    return out


def transpose_codes(indices_N: Tensor, offsets_B1: Tensor, n_latents: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens by latent int32 ``[N]``, their entries int64 ``[N]``, where latents begin int64 ``[F + 1]``."""
    batch = offsets_B1.numel() - 1
    entries = codes(indices_N, offsets_B1, batch)
    tokens = torch.empty_like(indices_N)
    order = torch.empty(indices_N.numel(), dtype=torch.int64)
    starts = torch.empty(n_latents + 1, dtype=torch.int64)
    failed = compiled("transpose_codes")(
        *entries,
        tokens.data_ptr(),
        order.data_ptr(),
        starts.data_ptr(),
        batch,
        n_latents,
        torch.get_num_threads(),
    )
    raise_if(failed)
    return tokens, order, starts


def expand_rows(indices_N: Tensor, offsets_C1: Tensor, values_N: Tensor, out_CF: Tensor) -> Tensor:
    """``out``, filled with the values at their places and zeros elsewhere."""
    rows, width = out_CF.shape
    compiled("expand_rows")(
        *codes(indices_N, offsets_C1, rows),
        address("values", values_N, torch.float32, (indices_N.numel(),)),
        address("out", out_CF, torch.float32, (rows, width)),
        rows,
        width,
        torch.get_num_threads(),
    )
    return out_CF


def collect_rows(dense_CF: Tensor, indices_N: Tensor, offsets_C1: Tensor) -> Tensor:
    """``[N]``: the entries of a dense chunk at the places that compressed rows name."""
    rows, width = dense_CF.shape
    values = dense_CF.new_empty(indices_N.numel())
    compiled("collect_rows")(
        address("dense", dense_CF, torch.float32, (rows, width)),
        *codes(indices_N, offsets_C1, rows),
        values.data_ptr(),
        rows,
        width,
        torch.get_num_threads(),
    )
    return values
