"""ShuffledBlocks: rows of files that are too large for memory, in random order. Shapes: N rows.

Single rows from random places of a disk are tens of times slower than the same rows in blocks of neighbours,
and rows that are shuffled among their neighbours alone train worse. So blocks are drawn from all over the
data, many at a time, and their rows are shuffled together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from qsae_core.contracts.block_lanes import BlockPass, Pool, lanes_for
from qsae_core.contracts.norm_limit import NormLimit
from qsae_core.errors import DataError

Columns = tuple[Tensor, ...]
"""The same rows of several tensors."""

SAMPLE = 8192
"""Rows from which the median norm is known, above a multiple of which they are left out."""


class RowReader(Protocol):
    """Where rows are read from."""

    def empty(self, rows: int) -> Columns:
        """Memory for so many rows."""

    def read_into(self, columns: Columns, start: int) -> None:
        """Fill all of the columns' rows with those of the data from ``start`` on.

        Raises:
            DataError: where they cannot be read or are not finite.
        """


class _Loaded(NamedTuple):
    """A pool of a lane: its first row's number in the lane, and where its rows are in memory, shuffled."""

    begin: int
    order: np.ndarray[Any, np.dtype[np.int64]]


class ShuffledBlocks:
    """An endless stream of rows.

    Each pass draws the blocks in a new order and cuts their rows into V lanes, equally long but for a row;
    row n of a pass is of lane n mod V. Of each lane a pool of its next blocks is in memory, whose rows are
    given in random order: all lanes' pools together are ``pool_blocks`` blocks from all over the data. A
    process that takes every W-th row reads the blocks of its lanes alone, if W divides V.

    So the stream is a sequence of rows that depends neither on how many are taken at once nor on how many
    processes share them, and the place in it is two numbers: pass and row.

    Args:
        reader: reads rows.
        blocks: ``(start, stop)`` of each, rows of the data; none is larger than the first.
        pool_blocks: blocks in memory.
        seed: of every order.
        norms: a multiple of the median norm of the first ``SAMPLE`` rows, above which rows are left out; the
            counts of a run that goes on come by ``go_to``.
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
        self._reader, self._blocks, self._seed = reader, blocks, seed
        self._limit, self._vectors = norms, vectors
        self._sizes = np.array([stop - start for start, stop in blocks], dtype=np.int64)
        self.rows = int(self._sizes.sum())
        self._lanes = lanes_for(pool_blocks, len(blocks))
        self._pool_blocks = pool_blocks // self._lanes
        self._most = int(self._sizes.max(initial=0)) * min(self._pool_blocks, len(blocks))
        self._memory: Columns | None = None
        self.go_to({"epoch": 0, "row": 0, "norms": NormLimit(norms).state()})

    rows: int
    """Of a pass, those with outlying norms included."""

    def take(self, size: int) -> Columns:
        """The next rows, in memory of their own."""
        if self._limit is None:
            return self._rows_of(size, 0, 1)
        if not self._norms.knows_medians:
            self._learn_medians()
        parts: list[Columns] = []
        while size > 0:
            rows = self._rows_of(size, 0, 1)
            kept = self._norms.kept(*self._vectors(rows))
            self._norms.next_block()
            parts.append(tuple(column[kept] for column in rows))
            size -= len(kept)
        return joined(parts)

    def take_part(self, size: int, rank: int, world: int) -> Columns:
        """Of the next ``size * world`` rows those with number ``rank`` modulo ``world``.

        Others are read as well where rows with outlying norms are left out (which they are is known when they
        are read), or there are no lanes that make up that part.
        """
        if self._limit is None and self._lanes % world == 0:
            return self._rows_of(size, rank, world)
        return tuple(column[rank::world] for column in self.take(size * world))

    def place(self) -> dict[str, Any]:
        """Where the stream stands, as JSON values; the same whatever part of it was taken."""
        return {"epoch": self._epoch, "row": self._row, "norms": self._norms.state()}

    def go_to(self, place: Mapping[str, Any]) -> None:
        """Go on where ``place`` was taken; other keys of the mapping do not matter.

        Raises:
            DataError: if there is no such place.
        """
        epoch, row = int(place["epoch"]), int(place["row"])
        if epoch < 0 or not 0 <= row < max(1, self.rows):
            raise DataError(
                f"there is no row {row:,} in pass {epoch} of {self.rows:,} rows",
                where="the place at which the run is to go on",
                next="start the run again with --overwrite",
            )
        self._epoch, self._row = epoch, row
        self._norms = NormLimit(self._limit, place["norms"])
        self._begin_pass()

    def left_out(self) -> str | None:
        """How many rows with outlying norms; None without a limit."""
        return self._norms.sentence()

    def close(self) -> None:
        """Let the memory go; pools are read again when they are needed."""
        self._memory = None
        self._loaded.clear()

    # --- rows of the stream as they come

    def _begin_pass(self) -> None:
        order = permutation(len(self._blocks), self._seed, self._epoch).numpy()
        self._pass = BlockPass(order, self._sizes[order], self._lanes, self._pool_blocks)
        self._loaded: dict[int, _Loaded] = {}

    def _learn_medians(self) -> None:
        """From the first rows of the first pass; the place stays."""
        place = self.place()
        self.go_to(place | {"epoch": 0, "row": 0})
        sample = self._rows_of(min(SAMPLE, self.rows), 0, 1)
        self.go_to(place)
        self._norms.learn(*self._vectors(sample))

    def _rows_of(self, size: int, rank: int, world: int) -> Columns:
        """As ``take_part``; ``world`` divides the number of lanes."""
        if size < 1 or not self.rows:
            raise ValueError(f"a batch of {size} of {self.rows} rows")
        parts: list[Columns] = []
        taken, total = 0, size * world
        while taken < total:
            here = min(total - taken, self.rows - self._row)
            numbers = range(self._row + (rank - taken) % world, self._row + here, world)
            if numbers:
                parts.append(self._gathered(numbers))
            taken, self._row = taken + here, self._row + here
            if self._row == self.rows:
                self._epoch, self._row = self._epoch + 1, 0
                self._begin_pass()
        return joined(parts)

    def _gathered(self, numbers: range) -> Columns:
        """Rows of this pass: every W-th."""
        lanes = range(numbers.start % numbers.step, self._lanes, numbers.step)
        memory = self._memory_of(lanes)
        places = np.full(len(numbers), -1, dtype=np.int64)
        given = dict.fromkeys(range(min(len(lanes), len(numbers))), 0)
        rows: Columns | None = None
        while True:
            behind = []
            for first in list(given):
                turn, lane = divmod(numbers[first], self._lanes)
                own, begin = places[first :: len(lanes)], turn + given[first]
                pool = self._loaded.get(lane)
                if pool is not None:
                    some = pool.order[begin - pool.begin :][: len(own) - given[first]]
                    own[given[first] : given[first] + len(some)] = some
                    given[first] += len(some)
                if given[first] < len(own):
                    behind.append((lane, turn + given[first]))
                else:
                    del given[first]
            if rows is None and not behind:
                return tuple(column[torch.from_numpy(places)] for column in memory)
            rows = rows or tuple(column.new_empty(len(numbers), *column.shape[1:]) for column in memory)
            found = torch.from_numpy(np.flatnonzero(places >= 0))
            for column, out in zip(memory, rows, strict=True):
                out[found] = column[torch.from_numpy(places)[found]]
            if not behind:
                return rows
            places[found.numpy()] = -1
            self._load(behind, lanes)

    def _memory_of(self, lanes: range) -> Columns:
        """For the pools of these lanes; pools of others are forgotten, where there are any."""
        if any(lane not in lanes for lane in self._loaded):
            self._loaded = {}
        if self._memory is None or len(self._memory[0]) != len(lanes) * self._most:
            self._memory = None  # before the new one is there
            self._memory, self._loaded = self._reader.empty(len(lanes) * self._most), {}
        return self._memory

    def _load(self, wanted: Sequence[tuple[int, int]], lanes: range) -> None:
        """The pools in which rows of lanes are, in the order of the data: each file is opened once."""
        memory = self._memory_of(lanes)
        pools: dict[int, Pool] = {}
        reads: list[tuple[int, int, int]] = []
        for lane, row in wanted:
            self._loaded.pop(lane, None)
            pools[lane] = pool = self._pass.pool(lane, row)
            place = lanes.index(lane) * self._most
            for block in pool.blocks:
                start, stop = self._blocks[block]
                reads.append((start, stop, place))
                place += stop - start
        for start, stop, place in sorted(reads):
            self._reader.read_into(tuple(column[place : place + stop - start] for column in memory), start)
        for lane, pool in pools.items():
            first = lanes.index(lane) * self._most + pool.skipped
            order = permutation(pool.rows, self._seed, self._epoch, pool.number * self._lanes + lane)
            self._loaded[lane] = _Loaded(pool.begin, first + order.numpy())


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
