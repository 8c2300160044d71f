"""The data source ``tensors``: blocks of rows in shuffled order, rows shuffled across a pool of blocks."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch

from qsae_core import ComponentConfig
from qsae_core.contracts import Batch, Columns, DataSource, ShuffledBlocks, batches_of, permutation
from qsae_core.errors import DataError
from qsae_data_tensors import TensorsConfig
from qsae_data_tensors.blocks import cut_blocks
from qsae_data_tensors.chunks import Chunks, check_paired
from qsae_data_tensors.fingerprint import fingerprint
from qsae_data_tensors.held_out_part import HeldOutRows
from qsae_data_tensors.split import Split, split_rows

if TYPE_CHECKING:
    from qsae_core.conformance import Case


class TensorsSource(DataSource):
    """Rows of tensor files; the training stream is a ``ShuffledBlocks`` of ``(x,)``, or of ``(x, y)`` where
    there are targets.

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
        return self.next_part(size, 0, 1)

    def next_part(self, size: int, rank: int, world: int) -> Batch:
        """Every ``world``-th row; blocks of others are not read, but where outlying norms are left out."""
        return self._batch(self._stream.take_part(size, rank, world))

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        """At most ``n_tokens`` held-out rows, in an order of blocks that is the same for every run's seed."""
        for rows in batches_of(self._held_out_rows(n_tokens), batch_size):
            yield self._batch(rows)

    def held_out_part(self) -> HeldOutRows:
        """Rows of files that are known again by their content."""
        source = self._sides[0]
        return HeldOutRows(source, self._options, lambda: self._n_held_out, self._hold_out_all)

    def state_dict(self) -> dict[str, Any]:
        """The place in the stream, and the number of rows as a check that the files are the same."""
        return {**self._stream.place(), "rows": self._sides[0].rows, "fingerprints": self._fingerprints}

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
        self._stream.go_to(state)

    @cached_property
    def _fingerprints(self) -> list[str]:
        return [fingerprint(side) for side in self._sides]

    def left_out(self) -> str | None:
        """How many rows with outlying norms."""
        return self._stream.left_out()

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
        self._stream.close()
        for side in self._sides:
            side.close()

    @property
    def _n_held_out(self) -> int:
        return sum(stop - start for start, stop in self._blocks.held_out)

    def _use(self, split: Split) -> None:
        self._blocks = cut_blocks(self._sides[0].files, split, self._options.block_rows)
        self._stream = ShuffledBlocks(
            self,
            self._blocks.training,
            self._options.shuffle_blocks,
            self.seed,
            norms=self._options.max_norm_multiple,
            vectors=self._vectors,
        )

    def _hold_out_all(self) -> None:
        files = self._sides[0].files
        ends = list(itertools.accumulate(file.rows for file in files))
        self._use(Split([], [(end - file.rows, end) for end, file in zip(ends, files, strict=True)]))

    def empty(self, rows: int) -> Columns:
        """Memory for so many rows of every side."""
        return tuple(torch.empty(rows, side.width) for side in self._sides)

    def read_into(self, columns: Columns, start: int) -> None:
        """Fill the sides with rows; raises DataError if one is not finite."""
        for side, rows in zip(self._sides, columns, strict=True):
            side.read_into(rows, start)

    def _held_out_rows(self, n_tokens: int) -> Iterator[Columns]:
        blocks = self._blocks.held_out
        for index in permutation(len(blocks), self._options.split_seed).tolist():
            if n_tokens <= 0:
                return
            start, stop = blocks[index]
            block = (start, min(stop, start + n_tokens))
            rows = self.empty(block[1] - start)
            self.read_into(rows, start)
            n_tokens -= len(rows[0])
            yield rows

    def _vectors(self, rows: Columns) -> Columns:
        """Both sides as vectors; one where they are the same."""
        batch = self._batch(rows)
        return (batch.x,) if batch.y is batch.x else (batch.x, batch.y)

    def _batch(self, rows: Columns) -> Batch:
        x = rows[0] if self.layers_in == 1 else rows[0].unflatten(1, (self.layers_in, self.d_in))
        if len(rows) == 1:
            return Batch(x, x)
        y = rows[1] if self.layers_out == 1 else rows[1].unflatten(1, (self.layers_out, self.d_out))
        return Batch(x, y)
