"""Which rows are read together."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from qsae_data_tensors.files import TensorFile
from qsae_data_tensors.split import Range, Split

FEWEST_BLOCKS = 64
"""Small data is read in smaller blocks than asked, so that there is an order to shuffle."""


class Blocks(NamedTuple):
    """Row ranges ``(start, stop)`` of the whole data."""

    training: list[Range]
    held_out: list[Range]
    rows_per_block: int
    """The most that one has."""


def cut_blocks(files: Sequence[TensorFile], split: Split, block_rows: int) -> Blocks:
    """Cut both sides of a split into blocks, of whole sequences where these fit."""
    rows = sum(file.rows for file in files)
    per_block = max(1, min(block_rows, rows // FEWEST_BLOCKS))
    training, held_out = (list(_cut(side, files, per_block)) for side in split)
    return Blocks(training, held_out, per_block)


def _cut(ranges: Sequence[Range], files: Sequence[TensorFile], size: int) -> Iterator[Range]:
    ends = list(itertools.accumulate(file.rows for file in files))
    for start, stop in ranges:
        positions = files[bisect.bisect_right(ends, start)].positions
        step = size // positions * positions if positions <= size else size
        yield from ((row, min(stop, row + step)) for row in range(start, stop, step))
