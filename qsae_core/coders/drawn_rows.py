"""Random rows of a matrix of which a process may keep a part. Shapes: F rows, D columns."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK_ENTRIES = 2**22
"""Entries that are drawn at once: 16 MB. Blocks are of 16 rows or a multiple, in which torch draws normal
numbers on the CPU, so that the rows are those of ``torch.randn(F, D)``."""


def drawn_rows(n: int, width: int, own: slice) -> Tensor:
    """float32 ``[own, D]``: rows of a standard normal ``[n, D]`` from the global generator, which stands
    afterwards where it would had all been kept.

    Args:
        own: which rows are kept; never are more in memory than these and a block.
    """
    step = max(16, BLOCK_ENTRIES // width // 16 * 16)
    if n <= step:
        return torch.randn(n, width, dtype=torch.float32)[own].clone()
    kept = torch.empty(own.stop - own.start, width, dtype=torch.float32)
    for start in range(0, n, step):
        block = torch.randn(min(step, n - start), width, dtype=torch.float32)
        first, last = max(start, own.start), min(start + len(block), own.stop)
        if first < last:
            kept[first - own.start : last - own.start] = block[first - start : last - start]
    return kept
