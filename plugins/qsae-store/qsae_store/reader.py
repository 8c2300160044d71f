"""Reading a store's vectors at some of its places. Shapes: N vectors, L places of a side, D width."""

from __future__ import annotations

import bisect
import collections
import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch

from qsae_core.contracts import ChosenSites, Columns, TokenBatch
from qsae_store.folder import Folder
from qsae_store.plan import Side, Storage
from qsae_store.records import ShardRecord, data_file
from qsae_store.shards import BLOCK, ShardFile
from qsae_store.storage import restore_into, suffixes

MOST_OPEN = 64
"""Shards that are open at the same time."""


class Reader:
    """Rows of a store: for each side float32 ``[N, L, D]``, and int32 ``[N, 4]`` as ``tokens`` of a shard.

    The training rows are numbered through, shard after shard; blocks never lie in two shards.

    Args:
        folder: of the store.
        shards: side of the split -> what is read of it.
        storage: the vectors' number format.
        chosen: the places.
        widths: of a source and of a target vector.
    """

    def __init__(
        self,
        folder: Folder,
        shards: Mapping[Side, Sequence[ShardRecord]],
        storage: Storage,
        chosen: ChosenSites,
        widths: tuple[int, int],
    ) -> None:
        self._folder, self._shards, self._storage = folder, shards, storage
        pairs = zip((chosen.sources, chosen.own_targets), widths, strict=True)
        self._sides = [(sites, width) for sites, width in pairs if sites]
        sizes = [record.vectors for record in shards["training"]]
        self._starts = list(itertools.accumulate(sizes, initial=0))
        self._open: collections.OrderedDict[str, ShardFile] = collections.OrderedDict()
        self._ordered: tuple[str, Columns] | None = None

    def blocks(self) -> list[tuple[int, int]]:
        """``(start, stop)`` of every block of training rows."""
        return [
            (row, min(stop, row + BLOCK))
            for start, stop in itertools.pairwise(self._starts)
            for row in range(start, stop, BLOCK)
        ]

    def empty(self, rows: int) -> Columns:
        """Memory for so many rows."""
        vectors = (torch.empty(rows, len(sites), width) for sites, width in self._sides)
        return (*vectors, torch.empty(rows, 4, dtype=torch.int32))

    def read_into(self, columns: Columns, start: int) -> None:
        """Fill memory with the training rows of one block, which begins there."""
        number = bisect.bisect_right(self._starts, start) - 1
        file = self.shard(self._shards["training"][number])
        self._fill(file, columns, start - self._starts[number])

    def shard(self, record: ShardRecord) -> ShardFile:
        """The file of a shard."""
        if record.name not in self._open:
            path = self._folder.local(data_file(record.name), record.sha256)
            self._open[record.name] = ShardFile(path, self._folder.mended)
            if len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(record.name)
        return self._open[record.name]

    def contexts(self, record: ShardRecord, at_once: int, first: int = 0) -> Iterator[TokenBatch]:
        """A shard's contexts from one on, in the text's order."""
        file = self.shard(record)
        ids, counted, documents = (file.rows(name, first) for name in ("ids", "counted", "documents"))
        segments = file.rows("segments", first).long() if file.has("segments") else None
        whole = TokenBatch(ids.long(), counted, torch.ones_like(counted), documents.long(), segments)
        for start in range(0, len(ids), at_once):
            yield whole.rows(slice(start, start + at_once))

    def in_order(self, side: Side, record: ShardRecord, start: int, stop: int) -> Columns:
        """Rows of a shard in the text's order; of a training shard all are in memory meanwhile."""
        if side == "held-out":
            return self._rows(record, start, stop)
        if not record.vectors:
            return self.empty(0)
        if self._ordered is None or self._ordered[0] != record.name:
            columns = self._rows(record, 0, record.vectors)
            tokens_N4 = columns[-1].long()
            order_N = (tokens_N4[:, 2] * (int(tokens_N4[:, 3].max()) + 1) + tokens_N4[:, 3]).argsort()
            self._ordered = record.name, tuple(column[order_N] for column in columns)
        return tuple(column[start:stop] for column in self._ordered[1])

    def _rows(self, record: ShardRecord, start: int, stop: int) -> Columns:
        """Any rows as they stand in a shard: whole blocks, then cut."""
        first, last = start // BLOCK * BLOCK, min(-(-stop // BLOCK) * BLOCK, record.vectors)
        columns = self.empty(last - first)
        self._fill(self.shard(record), columns, first)
        return tuple(column[start - first : stop - first] for column in columns)

    def _fill(self, file: ShardFile, columns: Columns, start: int) -> None:
        """Whole blocks of a shard, from the row on that one of them begins with."""
        columns[-1].copy_(file.rows("tokens", start, start + len(columns[-1])))
        for side, (sites, _) in zip(columns[:-1], self._sides, strict=True):
            for layer, site in enumerate(sites):
                names = tuple(f"{site}{suffix}" for suffix in suffixes(self._storage))
                restore_into(side[:, layer], file.checked_rows(names, start, start + len(side)))

    def close(self) -> None:
        """Close the files."""
        self._ordered = None
        while self._open:
            self._open.popitem()[1].close()
