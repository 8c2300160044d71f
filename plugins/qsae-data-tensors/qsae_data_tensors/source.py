"""The data source ``tensors``: blocks of rows in shuffled order, rows shuffled across a pool of blocks."""

from __future__ import annotations

import hashlib
import itertools
import pathlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.contracts import Batch, DataSource, NormLimit
from qsae_core.errors import DataError
from qsae_data_tensors import TensorsConfig
from qsae_data_tensors.blocks import cut_blocks
from qsae_data_tensors.chunks import Chunks, check_paired
from qsae_data_tensors.fingerprint import fingerprint
from qsae_data_tensors.held_out_part import HeldOutRows
from qsae_data_tensors.split import Split, split_rows

if TYPE_CHECKING:
    from qsae_core.conformance import Case

Sides = tuple[Tensor, ...]
"""The same rows on every side: ``(x,)``, or ``(x, y)`` where there are targets."""


class TensorsSource(DataSource):
    """Rows of tensor files.

    Each pass draws the training blocks in a new order, ``shuffle_blocks`` of them at a time make a pool, and
    the pool's rows are given in random order. So the stream is a sequence of rows that does not depend on
    batch sizes, and the place in it is three numbers: pass, pool and row. Memory holds one pool.

    Raises:
        DataError: on files that are missing, unreadable, empty, not float, or do not fit one another.
    """

    layer = "tensors"
    for_one_layer = "--middle positions, which makes each vector of [N, L, d] a row of its own"
    for_several_layers = "--middle layers, for tensors [N, L, d]"
    for_targets = "--target-path FILE, whose row i belongs to row i of --data-path"
    prefetch = 2

    def __init__(self, config: ComponentConfig, *, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(config, seed=seed, device=device)
        options = self._options = cast(TensorsConfig, config)
        layered = options.middle == "layers"
        source = Chunks(options.path, options.key, layered)
        self._sides: tuple[Chunks, ...] = (source,)
        if options.target_path is not None:
            self._sides = (source, Chunks(options.target_path, options.key, layered))
            check_paired(*self._sides)
        target = self._sides[-1]
        self.layers_in, self.layers_out = source.layers, target.layers
        self.d_in, self.d_out = source.width // source.layers, target.width // target.layers
        self.model_name = source.path.resolve().name if source.path.is_dir() else source.path.stem
        self._loaded: tuple[Sides, Tensor] | None = None
        self._memory: Sides | None = None
        self._norms = NormLimit(options.max_norm_multiple)
        self._use(split_rows(source.files, options.held_out, options.split_seed))

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Rows, sequences and pairs in small files."""
        from qsae_core.conformance import Case

        rows = torch.arange(2400.0).reshape(400, 6).sin()
        torch.save(rows, folder / "rows.pt")
        torch.save(rows.reshape(40, 10, 6).half(), folder / "sequences.pt")
        torch.save(rows.reshape(200, 2, 6).clone(), folder / "layers.pt")
        torch.save(rows[:, :3].clone(), folder / "targets.pt")
        return [
            Case({"path": str(folder / "rows.pt")}),
            Case({"path": str(folder / "sequences.pt"), "shuffle_blocks": 2}),
            Case({"path": str(folder / "layers.pt"), "middle": "layers"}),
            Case({"path": str(folder / "rows.pt"), "target_path": str(folder / "targets.pt")}),
        ]

    def next_batch(self, size: int) -> Batch:
        """The next ``size`` rows of the shuffled stream, on the CPU; raises DataError at NaN or infinity."""
        if size < 1:
            raise ValueError(f"a batch of {size} rows")
        parts: list[Sides] = []
        while size > 0:
            rows, order = self._pool_rows()
            chosen = order[self._row : self._row + size]
            parts.append(tuple(side[chosen] for side in rows))
            size -= len(chosen)
            self._row += len(chosen)
            if self._row == len(order):
                self._norms.next_block()
                last = self._pool + 1 == self._pools
                self._go_to(self._epoch + last, 0 if last else self._pool + 1, 0)
        return self._batch(_join(parts))

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        """At most ``n_tokens`` held-out rows, in an order of blocks that is the same for every run's seed."""
        waiting: Sides | None = None
        for rows in self._held_out_rows(n_tokens):
            waiting = rows if waiting is None else _join([waiting, rows])
            while len(waiting[0]) >= batch_size:
                yield self._batch(_cut(waiting, 0, batch_size))
                waiting = _cut(waiting, batch_size, None)
        if waiting is not None and len(waiting[0]):
            yield self._batch(waiting)

    def held_out_part(self) -> HeldOutRows:
        """Rows of files that are known again by their content."""
        source = self._sides[0]
        return HeldOutRows(source, self._options, lambda: self._n_held_out, self._hold_out_all)

    def state_dict(self) -> dict[str, Any]:
        """The place in the stream, and the number of rows as a check that the files are the same."""
        place = {"epoch": self._epoch, "pool": self._pool, "row": self._row, "norms": self._norms.counts}
        return {**place, "rows": self._sides[0].rows, "fingerprints": self._fingerprints}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue there; raises DataError where the files have other rows now, or another number of them."""
        if state["rows"] != self._sides[0].rows:
            raise DataError(
                f"there are {self._sides[0].rows} rows, but {state['rows']} when the run was interrupted",
                where=str(self._sides[0].path),
                allowed="the same files",
                next="bring the files back, or start a new run",
            )
        for side, now, before in zip(self._sides, self._fingerprints, state["fingerprints"], strict=True):
            if now != before:
                raise DataError(
                    "the rows are other ones than when the run was interrupted",
                    where=str(side.path),
                    allowed="the same files",
                    next="bring the files back, or start the run again with --overwrite",
                )
        self._go_to(state["epoch"], state["pool"], state["row"])
        self._norms = NormLimit(self._options.max_norm_multiple, state["norms"])

    @cached_property
    def _fingerprints(self) -> list[str]:
        return [fingerprint(side) for side in self._sides]

    def left_out(self) -> str | None:
        """How many rows with outlying norms."""
        return self._norms.sentence()

    @property
    def training_tokens(self) -> int | None:
        """Rows that are not held out; None where those with outlying norms are left out, too."""
        return None if self._options.max_norm_multiple is not None else self._n_training

    @property
    def _n_training(self) -> int:
        return self._sides[0].rows - self._n_held_out

    def describe(self) -> dict[str, Any]:
        """Files, shapes and the split."""
        source, blocks = self._sides[0], self._blocks
        return {
            "paths": [str(side.path) for side in self._sides],
            "files": [len(side.files) for side in self._sides],
            "dtypes": [sorted({file.dtype for file in side.files}) for side in self._sides],
            "widths": [side.width for side in self._sides],
            "rows": source.rows,
            "training_rows": self._n_training,
            "held_out_rows": self._n_held_out,
            "rows_per_block": blocks.rows_per_block,
            "outlying_norms": self.left_out() or "trained on",
            "files_left_out": [name for side in self._sides for name in side.left_out],
        }

    def close(self) -> None:
        """Unmap the files and drop the pool; they are mapped again when they are needed."""
        self._loaded = self._memory = None
        for side in self._sides:
            side.close()

    @property
    def _n_held_out(self) -> int:
        return sum(stop - start for start, stop in self._blocks.held_out)

    def _use(self, split: Split) -> None:
        self._blocks = cut_blocks(self._sides[0].files, split, self._options.block_rows)
        self._pools = -(-len(self._blocks.training) // self._options.shuffle_blocks)
        self._go_to(epoch=0, pool=0, row=0)

    def _hold_out_all(self) -> None:
        files = self._sides[0].files
        ends = list(itertools.accumulate(file.rows for file in files))
        self._use(Split([], [(end - file.rows, end) for end, file in zip(ends, files, strict=True)]))

    def _go_to(self, epoch: int, pool: int, row: int) -> None:
        self._epoch, self._pool, self._row = epoch, pool, row
        self._loaded = None

    def _pool_rows(self) -> tuple[Sides, Tensor]:
        """Rows of the current pool, and the order in which they are given."""
        if self._loaded is None:
            training, size = self._blocks.training, self._options.shuffle_blocks
            blocks = _permutation(len(training), self.seed, self._epoch)
            chosen = blocks[self._pool * size : (self._pool + 1) * size].tolist()
            if self._memory is None:  # every pool is read into it: fresh memory costs more than the reading
                self._memory = self._empty(min(size, len(training)) * self._blocks.rows_per_block)
            rows = self._read([training[index] for index in chosen], self._memory)
            batch = self._batch(rows)
            kept = self._norms.kept(*((batch.x,) if batch.y is batch.x else (batch.x, batch.y)))
            self._loaded = rows, kept[_permutation(len(kept), self.seed, self._epoch, self._pool)]
        return self._loaded

    def _held_out_rows(self, n_tokens: int) -> Iterator[Sides]:
        blocks = self._blocks.held_out
        for index in _permutation(len(blocks), self._options.split_seed).tolist():
            if n_tokens <= 0:
                return
            start, stop = blocks[index]
            block = (start, min(stop, start + n_tokens))
            rows = self._read([block], self._empty(block[1] - start))
            n_tokens -= len(rows[0])
            yield rows

    def _batch(self, rows: Sides) -> Batch:
        x = rows[0] if self.layers_in == 1 else rows[0].unflatten(1, (self.layers_in, self.d_in))
        if len(rows) == 1:
            return Batch(x, x)
        y = rows[1] if self.layers_out == 1 else rows[1].unflatten(1, (self.layers_out, self.d_out))
        return Batch(x, y)

    def _empty(self, rows: int) -> Sides:
        return tuple(torch.empty(rows, side.width) for side in self._sides)

    def _read(self, blocks: list[tuple[int, int]], memory: Sides) -> Sides:
        """The rows of the blocks, one block behind the other, at the beginning of the memory."""
        filled = 0
        for start, stop in blocks:
            for side, rows in zip(self._sides, memory, strict=True):
                side.read_into(rows[filled : filled + stop - start], start)
            filled += stop - start
        return _cut(memory, 0, filled)


def _cut(rows: Sides, start: int, stop: int | None) -> Sides:
    return tuple(side[start:stop] for side in rows)


def _join(parts: list[Sides]) -> Sides:
    return parts[0] if len(parts) == 1 else tuple(torch.cat(side) for side in zip(*parts, strict=True))


def _permutation(count: int, *seeds: int) -> Tensor:
    """A permutation that depends on the numbers alone."""
    digest = hashlib.blake2b(repr(seeds).encode(), digest_size=7).digest()
    return torch.randperm(count, generator=torch.Generator().manual_seed(int.from_bytes(digest, "big")))
