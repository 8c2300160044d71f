"""Which rows training never sees. A row's side depends on its place and on what is before it, on no total.

So rows that are held out stay so when rows are appended, to the last file or as further files, however few
there were. Units of rows that stand together are on one side, since neighbours are alike: single rows at the
beginning of the data, and ever more rows, up to ``UNIT_ROWS``, where there are 64 units before them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from qsae_data_tensors.files import TensorFile

UNIT_ROWS = 1024
"""Rows of a unit, at most."""
GRAIN = 64
"""A unit is about so many times smaller than what is before it: a share of a few percent is met early."""
Range = tuple[int, int]
"""Rows ``(start, stop)``."""


class Split(NamedTuple):
    """Row ranges of the whole data, in order, none across two files; those of one side are not adjacent in a
    file."""

    training: list[Range]
    held_out: list[Range]


def split_rows(files: Sequence[TensorFile], share: float, seed: int) -> Split:
    """Hold out a share of the rows: at least one, and not all, of any two rows or more."""
    held = held_out_units(sum(1 for _ in units(files)), share, seed)
    ends = {0} | {end for end, _ in _files_end(files)}
    sides: tuple[list[Range], list[Range]] = ([], [])
    for index, (start, stop) in enumerate(units(files)):
        side = sides[index in held]
        if side and side[-1][1] == start and start not in ends:
            side[-1] = (side[-1][0], stop)
        else:
            side.append((start, stop))
    return Split(*sides)


def held_out_units(count: int, share: float, seed: int) -> set[int]:
    """Of ``count`` units in order: the second one, and one out of every further ``1 / share`` of them, at a
    place in its stretch that the seed's hash decides. The first one never is, so both sides are there from
    two units on."""
    stretches = range(1, math.ceil(count * share))
    drawn = {int((stretch + _uniform(seed, stretch)) / share) for stretch in stretches}
    return {index for index in drawn if 1 < index < count} | {1}


def units(files: Sequence[TensorFile]) -> Iterator[Range]:
    """The units of all rows, in order. None crosses a file.

    Sequences ``[N, L, d]`` are on one side each, but for the first of the data: where it is all there is, it
    has to be on both.
    """
    for end, file in _files_end(files):
        row = end - file.rows
        while row < end:
            rows = _unit_rows(row)
            if end == file.rows and row < file.positions:
                rows = min(rows, file.positions - row)
            else:
                rows = max(1, rows // file.positions) * file.positions
            yield row, min(end, row + rows)
            row += rows


def _unit_rows(before: int) -> int:
    """Rows of a unit behind so many: 1, 2, 4 and so on."""
    exponent = max(0, (before // GRAIN).bit_length() - 1)
    return min(UNIT_ROWS, 1 << exponent)


def _files_end(files: Sequence[TensorFile]) -> Iterator[tuple[int, TensorFile]]:
    """Each file with the row behind its last one."""
    end = 0
    for file in files:
        end += file.rows
        yield end, file


def _uniform(seed: int, index: int) -> float:
    """A number in [0, 1) that depends on both and on nothing else, on any machine."""
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56
