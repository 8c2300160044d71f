"""Which rows are read together, and which of these blocks training never sees."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

from qsae_data_tensors.files import TensorFile

FEWEST_BLOCKS = 64
"""Small data is cut finer than asked, so that a share of a few percent is not rounded to nothing."""


class Blocks(NamedTuple):
    """Row ranges ``(start, stop)`` of the whole data."""

    training: list[tuple[int, int]]
    held_out: list[tuple[int, int]]
    rows_per_block: int
    whole_sequences: bool
    """Whether no sequence has positions on both sides (always so for ``[N, d]``)."""


def cut_blocks(files: list[TensorFile], block_rows: int, share: float, seed: int) -> Blocks:
    """Cut the rows into blocks and hold out a share of them.

    Blocks do not cross files, and consist of whole sequences where those fit. All blocks of one sequence are
    on the same side, unless there are so few sequences that the share is less than one of them.
    """
    rows = sum(file.rows for file in files)
    per_block = max(1, min(block_rows, rows // FEWEST_BLOCKS))
    whole = sum(file.sequences for file in files) * share >= 1
    groups: list[list[tuple[int, int]]] = []
    first = 0
    for file in files:
        for group in _groups(file, per_block, whole):
            groups.append([(first + start, first + stop) for start, stop in group])
        first += file.rows
    held = held_out_indices(len(groups), share, seed)
    training = [block for i, group in enumerate(groups) if i not in held for block in group]
    held_out = [block for i in sorted(held) for block in groups[i]]
    sequential = whole or all(file.positions == 1 for file in files)
    return Blocks(training, held_out, per_block, sequential)


def held_out_indices(count: int, share: float, seed: int) -> set[int]:
    """One index out of every ``1 / share`` of them, at a place in its stretch that the seed's hash decides.

    Indices stay held out when more data is appended. At least one is in, and at least one is out.
    """
    stretches = math.ceil(count * share)
    drawn = {int((stretch + _uniform(seed, stretch)) / share) for stretch in range(stretches)}
    held = {index for index in drawn if index < count}
    if not held:
        held = {int(_uniform(seed, 0) * count)}
    if len(held) == count:
        held.remove(max(held))
    return held


def _groups(file: TensorFile, per_block: int, whole: bool) -> list[list[tuple[int, int]]]:
    """Blocks of one file, in lists of those that stay on one side."""
    if file.positions <= per_block:
        aligned = per_block // file.positions * file.positions
        return [[block] for block in _cut(0, file.rows, aligned)]
    by_sequence = [
        _cut(start, start + file.positions, per_block) for start in range(0, file.rows, file.positions)
    ]
    return by_sequence if whole else [[block] for blocks in by_sequence for block in blocks]


def _cut(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    return [(i, min(stop, i + size)) for i in range(start, stop, size)]


def _uniform(seed: int, index: int) -> float:
    """A number in [0, 1) that depends on both and on nothing else, on any machine."""
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56
