"""The rotation of a normalised space, and back. Shapes: N rows, D = S * T width."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_kernels_cpu.arguments import address, raise_if
from qsae_kernels_cpu.library import compiled


def rotate(rows_ND: Tensor, signs_D: Tensor, left_SS: Tensor, right_TT: Tensor) -> Tensor:
    """``[N, D]``: each row times its signs, as a matrix ``X [S, T]``, becomes ``left X right``."""
    return _turned("rotate", rows_ND, signs_D, left_SS, right_TT)


def unrotate(rows_ND: Tensor, signs_D: Tensor, left_SS: Tensor, right_TT: Tensor) -> Tensor:
    """``[N, D]``: ``(left X) right^T`` times the signs."""
    return _turned("unrotate", rows_ND, signs_D, left_SS, right_TT)


def _turned(name: str, rows: Tensor, signs: Tensor, left: Tensor, right: Tensor) -> Tensor:
    n_rows, width = rows.shape
    blocks, size = left.shape[0], right.shape[0]
    out = torch.empty_like(rows)
    raise_if(
        compiled(name)(
            address("rows", rows, torch.float32, (n_rows, blocks * size)),
            address("signs", signs, torch.int8, (width,)),
            address("left", left, torch.float32, (blocks, blocks)),
            address("right", right, torch.float32, (size, size)),
            out.data_ptr(),
            n_rows,
            blocks,
            size,
            torch.get_num_threads(),
        )
    )
    return out
