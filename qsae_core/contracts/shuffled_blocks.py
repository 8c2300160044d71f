"""ShuffledBlocks: rows of files that are too large for memory, in random order. Shapes: N rows.

Single rows from random places of a disk are tens of times slower than the same rows in blocks of neighbours,
and rows that are shuffled among their neighbours alone train worse. So blocks are drawn from all over the
data, many at a time, and all of their rows are shuffled together.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from qsae_core.contracts.norm_limit import NormLimit

Columns = tuple[Tensor, ...]
"""The same rows of several tensors."""


class RowReader(Protocol):
    """Where rows are read from."""

    def empty(self, rows: int) -> Columns:
        """Memory for so many rows."""

    def read_into(self, columns: Columns, start: int) -> None:
        """Fill all of the columns' rows with those of the data from ``start`` on.

        Raises:
            DataError: where they cannot be read or are not finite.
        """


class ShuffledBlocks:
    """An endless stream of rows.

    Each pass draws the blocks in a new order, ``pool_blocks`` of them at a time make a pool, and the pool's
    rows are given in random order. So the stream is a sequence of rows that does not depend on how many are
    taken at once, and the place in it is three numbers: pass, pool and row. Memory holds one pool.

    Args:
        reader: reads rows.
        blocks: ``(start, stop)`` of each, rows of the data; none is larger than the first.
        pool_blocks: blocks of a pool.
        seed: of every order.
        norms: leaves rows with outlying norms out; the counts of a run that goes on come by ``go_to``.
        vectors: the columns' vectors ``[N, D]`` or ``[N, L, D]`` that ``norms`` looks at.
    """

    def __init__(
        self,
        reader: RowReader,
        blocks: Sequence[tuple[int, int]],
        pool_blocks: int,
        seed: int,
        *,
        norms: float | None,
        vectors: Callable[[Columns], tuple[Tensor, ...]],
    ) -> None:
        self._reader, self._blocks, self._pool_blocks, self._seed = reader, blocks, pool_blocks, seed
        self._limit, self._vectors = norms, vectors
        self._most = max((stop - start for start, stop in blocks), default=0)
        self._memory: Columns | None = None
        self.go_to({"epoch": 0, "pool": 0, "row": 0, "norms": (0, 0)})

    @property
    def rows(self) -> int:
        """Rows of a pass, those with outlying norms included."""
        return sum(stop - start for start, stop in self._blocks)

    def take(self, size: int) -> Columns:
        """The next rows, in memory of their own."""
        if size < 1:
            raise ValueError(f"a batch of {size} rows")
        parts: list[Columns] = []
        while size > 0:
            rows, order = self._pool_rows()
            chosen = order[self._row : self._row + size]
            parts.append(tuple(column[chosen] for column in rows))
            size -= len(chosen)
            self._row += len(chosen)
            if self._row == len(order):
                self._next_pool()
        return joined(parts)

    def place(self) -> dict[str, Any]:
        """Where the stream stands, as JSON values."""
        return {"epoch": self._epoch, "pool": self._pool, "row": self._row, "norms": self._norms.counts}

    def go_to(self, place: Mapping[str, Any]) -> None:
        """Go on where ``place`` was taken; other keys of the mapping do not matter."""
        self._epoch, self._pool, self._row = (int(place[key]) for key in ("epoch", "pool", "row"))
        self._norms = NormLimit(self._limit, place["norms"])
        self._loaded: tuple[Columns, Tensor] | None = None

    def left_out(self) -> str | None:
        """How many rows with outlying norms; None without a limit."""
        return self._norms.sentence()

    def close(self) -> None:
        """Let the memory go; the pool is read again when it is needed."""
        self._loaded = self._memory = None

    def _next_pool(self) -> None:
        self._norms.next_block()
        pools = -(-len(self._blocks) // self._pool_blocks)
        last = self._pool + 1 == pools
        self._epoch, self._pool, self._row = self._epoch + last, 0 if last else self._pool + 1, 0
        self._loaded = None

    def _pool_rows(self) -> tuple[Columns, Tensor]:
        """Rows of the current pool, and the order in which they are given."""
        if self._loaded is None:
            size = self._pool_blocks
            order = permutation(len(self._blocks), self._seed, self._epoch)
            chosen = order[self._pool * size : (self._pool + 1) * size].tolist()
            if self._memory is None:  # every pool is read into it: fresh memory costs more than the reading
                self._memory = self._reader.empty(min(size, len(self._blocks)) * self._most)
            rows = read_blocks(self._reader, [self._blocks[index] for index in chosen], self._memory)
            kept = self._norms.kept(*self._vectors(rows))
            self._loaded = rows, kept[permutation(len(kept), self._seed, self._epoch, self._pool)]
        return self._loaded


def read_blocks(reader: RowReader, blocks: Sequence[tuple[int, int]], memory: Columns) -> Columns:
    """The rows of the blocks, one block behind the other, at the beginning of the memory.

    They are read in the order of the data, so that each file is opened once.
    """
    *places, filled = itertools.accumulate((stop - start for start, stop in blocks), initial=0)
    for (start, stop), place in sorted(zip(blocks, places, strict=True)):
        part = tuple(column[place : place + stop - start] for column in memory)
        reader.read_into(part, start)
    return tuple(column[:filled] for column in memory)


def batches_of(parts: Iterator[Columns], size: int) -> Iterator[Columns]:
    """The same rows in batches of one size, but for the last."""
    waiting: Columns | None = None
    for rows in parts:
        waiting = rows if waiting is None else joined([waiting, rows])
        while len(waiting[0]) >= size:
            yield tuple(column[:size] for column in waiting)
            waiting = tuple(column[size:] for column in waiting)
    if waiting is not None and len(waiting[0]):
        yield waiting


def joined(parts: Sequence[Columns]) -> Columns:
    """Rows behind one another."""
    return parts[0] if len(parts) == 1 else tuple(torch.cat(column) for column in zip(*parts, strict=True))


def permutation(count: int, *seeds: int) -> Tensor:
    """int64 ``[count]``: a permutation that depends on the numbers alone."""
    digest = hashlib.blake2b(repr(seeds).encode(), digest_size=7).digest()
    return torch.randperm(count, generator=torch.Generator().manual_seed(int.from_bytes(digest, "big")))
