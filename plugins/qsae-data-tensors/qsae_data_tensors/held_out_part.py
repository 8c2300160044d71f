"""What of the rows is held out, and how files are known again: by single rows of them, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from qsae_core.contracts import HeldOutPart, Overlap
from qsae_core.errors import DataError
from qsae_data_tensors.known_rows import same_values, stand_elsewhere, values_of

if TYPE_CHECKING:
    from qsae_data_tensors import TensorsConfig
    from qsae_data_tensors.chunks import Chunks

MARK_BYTES = 6
"""Of a row's digest; where files are the same all of them agree, so that chance has no part in it."""


class HeldOutRows(HeldOutPart):
    """The held-out rows of tensor files.

    Args:
        chunks: the inputs' files.
        options: of the source.
        count: gives the number of rows that are held out now.
        take_all: holds out all of them.
    """

    def __init__(
        self,
        chunks: Chunks,
        options: TensorsConfig,
        count: Callable[[], int],
        take_all: Callable[[], None],
    ) -> None:
        self._chunks, self._options = chunks, options
        self._count, self._take_all = count, take_all

    def record(self) -> dict[str, Any]:
        """The split's options, and of each file its size, and the digests and values of a few rows."""
        return {"split": self._split(), "files": list(self._files())}

    def overlap(self, record: Mapping[str, Any]) -> Overlap:
        """Files are the same as far as their rows agree: one may have been appended to, or shortened, or be
        of another float type. Rows in another order are looked for where no file agrees."""
        before, now = record["files"], list(self._files())
        if not any(_agree(one, other) for one in before for other in now):
            return Overlap.HELD_OUT if stand_elsewhere(self._chunks, before) else Overlap.NONE
        same_split = record["split"] == self._split()
        return Overlap.TRAINING if same_split and _in_line(before, now) else Overlap.HELD_OUT

    def take_all(self) -> None:
        """Hold out all rows."""
        self._take_all()

    def name(self) -> str:
        """How many rows of how many, and the file or folder."""
        held, rows = self._count(), self._chunks.rows
        place = self._chunks.path.name or str(self._chunks.path)
        return (
            f"all {rows:,} rows of {place}"
            if held == rows
            else f"the {held:,} held-out of the {rows:,} rows of {place}"
        )

    def size(self) -> int:
        """Rows that are held out."""
        return self._count()

    def _split(self) -> dict[str, Any]:
        return {name: getattr(self._options, name) for name in ("held_out", "split_seed")}

    def _files(self) -> Iterator[dict[str, Any]]:
        first = 0
        for file in self._chunks.files:
            found = [self._mark(first + row) for row in _marked(file.rows)]
            marks, values = [mark for mark, _ in found], [value for _, value in found]
            yield {"rows": file.rows, "positions": file.positions, "marks": marks, "values": values}
            first += file.rows

    def _mark(self, row: int) -> tuple[str, list[float]]:
        values = torch.empty(1, self._chunks.width)
        try:
            self._chunks.read_into(values, row)
        except DataError:  # it is not finite, and is refused where it is read for training
            return "", []
        digest = hashlib.blake2b(values.numpy().tobytes(), digest_size=MARK_BYTES).hexdigest()
        return digest, values_of(values[0])


def _marked(rows: int) -> list[int]:
    """Places of the rows that stand for a file: those of a shorter one are the first of a longer one's."""
    powers = (4**exponent for exponent in range(rows.bit_length()))
    return [0, *(row for row in powers if row < rows)]


def _agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    marks = zip(one["marks"], other["marks"], strict=False)  # as far as both go
    if all(first == second for first, second in marks):
        return True
    values = list(zip(one.get("values", []), other.get("values", []), strict=False))
    return bool(values) and all(same_values(first, second) for first, second in values)


def _in_line(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows stand where they stood: then a split of the same options has them on the same side."""
    common = list(zip(before, now, strict=False))
    whole = all(one["rows"] == other["rows"] for one, other in common[:-1])
    last = common[-1]
    # behind a file of another length, further files stand elsewhere
    more = len(before if last[0]["rows"] < last[1]["rows"] else now) == len(common)
    alike = all(_agree(one, other) and one["positions"] == other["positions"] for one, other in common)
    return whole and alike and (more or last[0]["rows"] == last[1]["rows"])
