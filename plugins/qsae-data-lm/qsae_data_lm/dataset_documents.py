"""Documents of a Hugging Face dataset: streamed, or out of a table on disk. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsae_data_lm.corpus import Document, is_held_out
from qsae_data_lm.dataset_rows import RowStream, unreadable
from qsae_data_lm.documents import PLAIN, WHOLE, Form, Numbered, Share, shuffled
from qsae_data_lm.packing import Position
from qsae_data_lm.split import MARKS, HeldOutDocuments, Split, mark
from qsae_data_lm.text_column import SAMPLE, Row

KNOWN = 1000
"""First documents of a dataset by which it is known again."""
AT_ONCE = 256
"""Rows that are fetched from a table at once."""

ToDocument = Callable[[str, Row], Document | None]
"""(where a row stands, the row) -> its document; None where it has no text."""


class StreamedDocuments:
    """Documents that are read as they are needed, never all at once.

    An epoch takes the dataset's parts (files) in a new order, reads them one after the other, and shuffles
    `buffer` rows at a time, which are all that is in memory. A place is the library's state at the first row
    of such a window, and how far the window's documents were given out.

    Args:
        rows: the dataset.
        to_document: makes a document of a row.
        split: which documents are held out.
        description: where they come from.
        buffer: rows of a window.
        form: how they become tokens.
    """

    in_memory = finite = False

    def __init__(
        self,
        rows: RowStream,
        to_document: ToDocument,
        split: Split,
        description: dict[str, Any],
        *,
        buffer: int,
        form: Form = PLAIN,
    ) -> None:
        self._rows, self._to_document, self._split = rows, to_document, split
        self._description, self._buffer, self.form = description, buffer, form

    def describe(self) -> dict[str, Any]:
        """Where the text comes from, and in how many parts."""
        return {**self._description, "dataset_parts": self._rows.parts}

    def beginning(self) -> Iterator[str]:
        """The first texts of the stream."""
        return (document.text for document in islice(self._in_order(), SAMPLE))

    def size(self) -> dict[str, int]:
        """Its parts, which each epoch takes in an order of their own."""
        return {"parts": self._rows.parts}

    def training(self, seed: int, epoch: int, start: Position, share: Share = WHOLE) -> Iterator[Numbered]:
        """Every training document once. Processes share the parts where these divide evenly among them, so
        that each opens its own alone; else each reads all rows and keeps every `world`-th."""
        rank, world = share
        parts = shuffled(self._rows.parts, seed, epoch)
        by_parts = self._rows.parts % world == 0
        if by_parts:
            parts = parts[rank::world]
        window, offset = (None, 0) if start is None else (start["window"], int(start["next"]))
        reader = self._rows.read(parts.tolist(), window)
        while True:
            window, first = reader.place(), reader.n_read
            rows = list(islice(reader, self._buffer))
            if not rows:
                return
            order = shuffled(len(rows), seed, epoch, first // self._buffer)
            for place in range(offset, len(rows)):
                number = first + place
                if not by_parts and number % world != rank:
                    continue
                document = self._to_document(*rows[order[place]])
                if document is not None and not self._split.holds_out(document.key):
                    number = number * world + rank if by_parts else number
                    yield Numbered({"window": window, "next": place + 1}, number, document)
            offset = 0

    def held_out(self) -> Iterator[Document]:
        """In the dataset's order; reads on until the caller has enough."""
        return (document for document in self._in_order() if self._split.holds_out(document.key))

    def held_out_part(self, place: str) -> HeldOutDocuments:
        """A dataset is known again by its first documents: those of another one are others."""
        return part_known_by_first(self._split, self._in_order, place, None)

    def _in_order(self) -> Iterator[Document]:
        return (d for row in self._rows.read() if (d := self._to_document(*row)) is not None)


class IndexedDocuments:
    """Documents of a table on disk (memory-mapped Arrow), of which any row can be read.

    So an epoch is shuffled as a whole, and documents are counted. Memory holds a few rows, and of each row
    its place in the order and its side of the split.

    Args:
        table: the library's `Dataset`.
        name: what the user calls it.
        to_document, split, description, form: as of `StreamedDocuments`.
    """

    in_memory, finite = False, True

    def __init__(
        self,
        table: Any,
        name: str,
        to_document: ToDocument,
        split: Split,
        description: dict[str, Any],
        *,
        form: Form = PLAIN,
    ) -> None:
        self._table, self._name, self._to_document = table, name, to_document
        self._split, self._description, self.form = split, description, form

    def describe(self) -> dict[str, Any]:
        """Where the text comes from, and how many documents are on each side of the split."""
        held_out, number = self._counts()
        return {**self._description, "documents": number, "held_out_documents": held_out}

    def beginning(self) -> Iterator[str]:
        """Texts at even distances in the table, from the first to the last."""
        some = np.linspace(0, max(0, len(self._table) - 1), min(SAMPLE, len(self._table))).astype(np.int64)
        return (document.text for document in self._documents(some) if document is not None)

    def size(self) -> dict[str, int]:
        """Its rows, which each epoch takes in an order of their own."""
        return {"rows": len(self._table)}

    def training(self, seed: int, epoch: int, start: Position, share: Share = WHOLE) -> Iterator[Numbered]:
        """Every training document once, shuffled by seed and epoch."""
        rank, world = share
        held_out, empty = self._sides
        passed = empty | held_out if not self._split.everything else np.ones_like(empty)
        order = shuffled(len(passed), seed, epoch)
        left = np.arange(start or 0, len(order))
        left = left[(left % world == rank) & ~passed[order[left]]]
        for position, document in zip(left.tolist(), self._documents(order[left]), strict=True):
            assert document is not None
            yield Numbered(position + 1, position, document)

    def held_out(self) -> Iterator[Document]:
        """In the order of the table."""
        if self._split.everything:
            return self._in_order()
        return (d for d in self._documents(np.flatnonzero(self._sides[0])) if d is not None)

    def held_out_part(self, place: str) -> HeldOutDocuments:
        """As of a streamed dataset, which this may have been in another run."""
        return part_known_by_first(self._split, self._in_order, place, self._counts)

    @cached_property
    def _sides(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of each row, whether it is held out by its hash, and whether it is empty. Reads the table once."""
        held_out, empty = (np.zeros(len(self._table), dtype=np.bool_) for _ in range(2))
        for row, document in enumerate(self._documents(range(len(self._table)))):
            if document is None:
                empty[row] = True
            else:
                held_out[row] = is_held_out(document.key, self._split.share)
        return held_out, empty

    def _counts(self) -> tuple[int, int]:
        held_out, empty = self._sides
        number = int((~empty).sum())
        return number if self._split.everything else int(held_out.sum()), number

    def _in_order(self) -> Iterator[Document]:
        return (d for d in self._documents(range(len(self._table))) if d is not None)

    def _documents(self, rows: Sequence[int] | NDArray[np.int64]) -> Iterator[Document | None]:
        for start in range(0, len(rows), AT_ONCE):
            some = [int(row) for row in rows[start : start + AT_ONCE]]
            try:
                columns = self._table[some]
            except Exception as error:  # as of `RowReader`
                raise unreadable(self._name, str(some[0]), error) from error
            for place, row in enumerate(some):
                values = {column: found[place] for column, found in columns.items()}
                yield self._to_document(f"{self._name}: row {row}", values)


def part_known_by_first(
    split: Split,
    documents: Callable[[], Iterable[Document]],
    place: str,
    counts: Callable[[], tuple[int, int]] | None,
) -> HeldOutDocuments:
    """What is held out of a dataset that its first documents tell from others."""

    def first(count: int) -> list[str]:
        return [mark(document.key) for document in islice(documents(), count)]

    return HeldOutDocuments(split, lambda: first(MARKS), lambda: set(first(KNOWN)), place, counts)
