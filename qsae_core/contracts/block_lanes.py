"""How the blocks of a pass are dealt to lanes, and those of a lane to pools."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

LANES = (192, 96, 48, 24, 12, 6, 1)
"""Numbers of lanes, of which most numbers of processes are divisors."""
LEAST_BLOCKS = 4
"""Blocks of a lane's pool, and of a lane: with fewer it would read its first and last one, which it shares
with its neighbours, for little else."""

Numbers = np.ndarray[Any, np.dtype[np.int64]]


def lanes_for(pool_blocks: int, blocks: int) -> int:
    """How many lanes there are of so many blocks, of which so many are in memory; 1 where there are few."""
    return next((n for n in LANES if n * LEAST_BLOCKS <= min(pool_blocks, blocks)), 1)


class Pool(NamedTuple):
    """Blocks of a lane that are in memory at the same time.

    Attributes:
        number: of the lane's pools.
        blocks: which, in the order in which they lie in memory.
        skipped: rows of the first block that are of the lane before.
        rows: of this lane; what is behind them in the last block is of the next lane.
        begin: the number of the first of these rows, among the lane's.
    """

    number: int
    blocks: list[int]
    skipped: int
    rows: int
    begin: int


class BlockPass:
    """One pass: the rows of the blocks, in the order of the pass, cut into lanes equally long but for a row.

    Args:
        order: the blocks.
        sizes: rows of each, in that order.
        lanes: into how many their rows are cut.
        pool_blocks: blocks of a lane's pool.
    """

    def __init__(self, order: Numbers, sizes: Numbers, lanes: int, pool_blocks: int) -> None:
        self._order, self._lanes, self._pool_blocks = order, lanes, pool_blocks
        self._ends = sizes.cumsum()

    def pool(self, lane: int, row: int) -> Pool:
        """The pool with a row of a lane."""
        start, stop = self._bounds(lane)
        first, last = self._block_at(start), self._block_at(stop - 1)
        number = (self._block_at(start + row) - first) // self._pool_blocks
        head = first + number * self._pool_blocks
        tail = min(head + self._pool_blocks, last + 1)
        begins = int(self._ends[head - 1]) if head else 0
        own = slice(max(start, begins), min(stop, int(self._ends[tail - 1])))
        blocks = self._order[head:tail].tolist()
        return Pool(number, blocks, own.start - begins, own.stop - own.start, own.start - start)

    def _bounds(self, lane: int) -> tuple[int, int]:
        """The rows of a lane; the first lanes have those that are over."""
        size, over = divmod(int(self._ends[-1]), self._lanes)
        start = lane * size + min(lane, over)
        return start, start + size + (lane < over)

    def _block_at(self, row: int) -> int:
        return int(np.searchsorted(self._ends, row, side="right"))
