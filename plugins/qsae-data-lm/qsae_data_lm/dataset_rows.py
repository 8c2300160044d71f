"""Rows of a streamed Hugging Face dataset, and places from which reading goes on. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qsae_core.errors import DataError
from qsae_data_lm.text_column import Row


class RowStream:
    """A streamed dataset, in parts: mostly its files.

    Args:
        dataset: the library's `IterableDataset`.
        name: what the user calls it.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self.name = dataset, name
        self.parts: int = max(1, dataset.num_shards)

    def read(self, parts: Sequence[int] | None = None, place: Mapping[str, Any] | None = None) -> RowReader:
        """The rows of some parts, one part after the other.

        Args:
            parts: which, in which order; None: all, in the dataset's own.
            place: of another reader of the same parts in the same order, to go on from.
        """
        return RowReader(self, range(self.parts) if parts is None else parts, place)

    def part(self, number: int) -> Any:
        """One part, as a dataset of the library with a state of its own."""
        return self._dataset.shard(self.parts, number)


class RowReader(Iterator[tuple[str, Row]]):
    """Rows, each with where it stands: `x.jsonl: row 7`, `folder: row 7 of part 2 of 3`.

    Going on from a place, the library enters the part at which it stood; parts before it are not opened.

    Attributes:
        n_read: rows read so far, those before the place included.
    """

    def __init__(self, stream: RowStream, parts: Sequence[int], place: Mapping[str, Any] | None) -> None:
        at = place or {"part": 0, "row": 0, "read": 0, "state": None}
        self._stream, self._parts = stream, parts
        self._at, self._row, self.n_read = int(at["part"]), int(at["row"]), int(at["read"])
        self._enter(at["state"])

    def _enter(self, state: dict[str, Any] | None) -> None:
        self._entered, self._moved = state, False
        if self._at < len(self._parts):
            self._part = self._stream.part(int(self._parts[self._at]))
            if state is not None:
                self._part.load_state_dict(state)
            self._rows: Iterator[Row] = iter(self._part)

    def place(self) -> dict[str, Any]:
        """Where it stands, in JSON values: part, row of that part, rows in all, and the library's state."""
        state = self._part.state_dict() if self._moved else self._entered
        return {"part": self._at, "row": self._row, "read": self.n_read, "state": state}

    def __next__(self) -> tuple[str, Row]:
        """The next row.

        Raises:
            DataError: with data set and row, for whatever the library raises.
        """
        while self._at < len(self._parts):
            try:
                row = next(self._rows)
            except StopIteration:
                self._at, self._row = self._at + 1, 0
                self._enter(None)
                continue
            except Exception as error:  # the library raises its own kinds, pyarrow's, pandas' and network's
                raise unreadable(self._stream.name, f"{self._row}{self._of_part()}", error) from error
            found = f"{self._stream.name}: row {self._row}{self._of_part()}", row
            self._row, self.n_read, self._moved = self._row + 1, self.n_read + 1, True
            return found
        raise StopIteration

    def _of_part(self) -> str:
        several = self._stream.parts > 1
        return f" of part {int(self._parts[self._at]) + 1} of {self._stream.parts}" if several else ""


def unreadable(name: str, row: str, error: Exception) -> DataError:
    """The error for what a library raises while it reads."""
    return DataError(
        f"rows from number {row} on cannot be read: {reason(error)}",
        where=f"data.dataset: {name}",
        allowed="files of one format with the same columns; rows count from 0",
        next="mend or leave out the file or row; files that differ can be read one by one",
    )


def reason(error: Exception) -> str:
    """What a library says, in one line of bounded length."""
    text = " ".join(str(error).split()) or repr(error)
    return text if len(text) <= 300 else f"{text[:300]} ..."
