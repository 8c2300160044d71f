"""Random rows of a matrix of which a process may keep a part. Shapes: F rows, D columns."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import torch
from torch import Tensor

from qsae_core.coders.quantized_matrix import normalize_rows_

BLOCK_ENTRIES = 2**22
"""Entries that are drawn at once: 16 MB."""
ROWS = 16
"""Blocks have a multiple of so many rows, and the last one as many at least: torch draws 16 normal numbers at
a time on the CPU, and the rows are those of ``torch.randn(F, D)``."""


_BLANK = contextvars.ContextVar("blank", default=False)


@contextlib.contextmanager
def blank_rows() -> Iterator[None]:
    """Matrices of coders that are made in this block hold anything, for who fills them at once: nothing is
    drawn, and they take no memory until then."""
    token = _BLANK.set(True)
    try:
        yield
    finally:
        _BLANK.reset(token)


def unit_rows(n: int, width: int, own: slice, norm: float = 1.0) -> Tensor:
    """float32 ``[own, D]``: ``drawn_rows`` of a norm; within ``blank_rows`` anything."""
    if _BLANK.get():
        return torch.empty(own.stop - own.start, width, dtype=torch.float32)
    rows = drawn_rows(n, width, own)
    normalize_rows_(rows)
    return rows if norm == 1 else rows.mul_(norm)


def rows_like(atoms_FE: Tensor, norm: float) -> Tensor:
    """float32 ``[F, E]``: unit rows times a norm; within ``blank_rows`` anything."""
    return torch.empty_like(atoms_FE) if _BLANK.get() else atoms_FE.mul(norm)


def drawn_rows(n: int, width: int, own: slice) -> Tensor:
    """float32 ``[own, D]``: rows of a standard normal ``[n, D]`` from the global generator, which stands
    afterwards where it would had all been kept.

    Args:
        own: which rows are kept; never are more in memory than these and a block.
    """
    size = max(1, BLOCK_ENTRIES // (ROWS * width)) * ROWS
    kept = torch.empty(own.stop - own.start, width, dtype=torch.float32)
    start = 0
    while start < n:
        stop = start + size if n - start >= size + ROWS else n
        block = torch.randn(stop - start, width, dtype=torch.float32)
        first, last = max(start, own.start), min(stop, own.stop)
        if first < last:
            kept[first - own.start : last - own.start] = block[first - start : last - start]
        start = stop
    return kept
