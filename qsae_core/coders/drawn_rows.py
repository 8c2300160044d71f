"""Random rows of a matrix of which a process may keep a part. Shapes: F rows, D columns."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK_ENTRIES = 2**22
"""Entries that are drawn at once: 16 MB."""
ROWS = 16
"""Blocks have a multiple of so many rows, and the last one as many at least: torch draws 16 normal numbers at
a time on the CPU, and the rows are those of ``torch.randn(F, D)``."""


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
