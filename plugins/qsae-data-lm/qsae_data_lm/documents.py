"""Streams of documents: the training part in a seeded order that can be entered anywhere, and the rest.

Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from qsae_core.errors import DataError
from qsae_data_lm import LmConfig
from qsae_data_lm.corpus import Document, builtin_documents
from qsae_data_lm.split import MARKS, HeldOutDocuments, Split, mark
from qsae_data_lm.text_column import SAMPLE

Side = Literal["training", "held-out"]
WINDOW = 1000
"""Documents of a streamed dataset that are in memory and shuffled together."""


def open_documents(config: LmConfig) -> Documents:
    """The text that a config asks for.

    Raises:
        DataError: if it cannot be opened or holds no text.
    """
    share = config.held_out_share
    if config.dataset is not None:
        from qsae_data_lm.datasets_text import open_dataset

        read, description = open_dataset(
            config.dataset, config.dataset_name, config.dataset_split, config.dataset_column
        )
        return StreamedDocuments(read, Split(share), description)
    if config.text is not None:
        from qsae_data_lm.text_files import read_text

        documents, description = read_text(config.text)
        return LocalDocuments(documents, Split(share, (d.key for d in documents)), description)
    description = {"text": "the Python standard library's source and documentation"}
    return LocalDocuments(list(builtin_documents()), Split(share), description)


class Documents(Protocol):
    """Where a source takes its text from."""

    finite: bool
    """Whether all documents are in memory, so that their tokens may be kept too."""

    def describe(self) -> dict[str, Any]:
        """JSON values for the run's record."""

    def beginning(self) -> Iterator[str]:
        """Texts by which the source is known again: all that are in memory, or the first of a stream."""

    def training(self, seed: int, epoch: int, start: int) -> Iterator[tuple[int, Document]]:
        """Documents of an epoch with the position behind each; `start` is such a position, or 0."""

    def held_out(self) -> Iterator[Document]:
        """The held-out documents, always in the same order."""

    def held_out_part(self, place: str) -> HeldOutDocuments:
        """What is held out, of a text that is called ``place``."""


class LocalDocuments:
    """Documents in memory.

    Args:
        documents: all of them.
        split: which of them are held out.
        description: where they come from, in a few words.
    """

    finite = True

    def __init__(self, documents: Sequence[Document], split: Split, description: dict[str, Any]) -> None:
        self._all, self._split, self._description = list(documents), split, description

    def describe(self) -> dict[str, Any]:
        """Where the text comes from, and how many documents are on each side of the split."""
        held_out, number = self._counts()
        return {**self._description, "documents": number, "held_out_documents": held_out}

    def beginning(self) -> Iterator[str]:
        """All texts."""
        return (document.text for document in self._all)

    def training(self, seed: int, epoch: int, start: int) -> Iterator[tuple[int, Document]]:
        """Every training document once, shuffled by seed and epoch."""
        order = shuffled(len(self._all), seed, epoch)
        for position in range(start, len(order)):
            document = self._all[order[position]]
            if not self._split.holds_out(document.key):
                yield position + 1, document

    def held_out(self) -> Iterator[Document]:
        """In the order in which they were given."""
        return (document for document in self._all if self._split.holds_out(document.key))

    def held_out_part(self, place: str) -> HeldOutDocuments:
        """A text is known again by the documents whose hashes are largest, which are never held out."""
        return HeldOutDocuments(
            self._split, lambda: sorted(self._marks())[-MARKS:], self._marks, place, self._counts
        )

    def _marks(self) -> set[str]:
        return {mark(document.key) for document in self._all}

    def _counts(self) -> tuple[int, int]:
        return sum(self._split.holds_out(document.key) for document in self._all), len(self._all)


class StreamedDocuments:
    """Documents that are read as they are needed, never all at once; shuffled within windows.

    Args:
        read: start -> texts from that document on, in the dataset's own order.
        split: which documents are held out.
        description: where they come from.
    """

    finite = False

    def __init__(
        self, read: Callable[[int], Iterator[str]], split: Split, description: dict[str, Any]
    ) -> None:
        self._read, self._split, self._description = read, split, description

    def describe(self) -> dict[str, Any]:
        """Where the text comes from."""
        return self._description

    def beginning(self) -> Iterator[str]:
        """The first texts of the stream."""
        return islice(self._read(0), SAMPLE)

    def training(self, seed: int, epoch: int, start: int) -> Iterator[tuple[int, Document]]:
        """Every training document once; the order within each window is shuffled by seed and epoch."""
        window, offset = divmod(start, WINDOW)
        texts = self._read(window * WINDOW)
        while batch := list(islice(texts, WINDOW)):
            order = shuffled(len(batch), seed, epoch, window)
            for place in range(offset, len(batch)):
                text = batch[order[place]]
                if text.strip() and not self._split.holds_out(text):
                    yield window * WINDOW + place + 1, Document(text, text)
            window, offset = window + 1, 0

    def held_out(self) -> Iterator[Document]:
        """In the dataset's order; reads on until the caller has enough."""
        for text in self._read(0):
            if text.strip() and self._split.holds_out(text):
                yield Document(text, text)

    def held_out_part(self, place: str) -> HeldOutDocuments:
        """A dataset is known again by its first documents: those of another one are others."""
        return HeldOutDocuments(
            self._split, lambda: self._first(MARKS), lambda: set(self._first(WINDOW)), place, None
        )

    def _first(self, count: int) -> list[str]:
        return [mark(text) for text in islice(filter(str.strip, self._read(0)), count)]


def shuffled(n: int, *seeds: int) -> NDArray[np.int64]:
    """A permutation of range(n) that is determined by the seeds."""
    return np.random.default_rng(seeds).permutation(n)


def too_little(documents: Documents, part: Side, context: int, where: str) -> DataError:
    """The error for a side of the split that has not one context."""
    hint = "give more text" if part == "training" else "give more text, or a larger --held-out-share"
    found = documents.training(0, 0, 0) if part == "training" else enumerate(documents.held_out())
    if next(found, None) is None:
        return DataError(
            f"no document is left for the {part} text: all are on the other side of the split, which keeps "
            "documents of the same text together",
            where=where,
            allowed="a text of several different documents",
            next=hint,
        )
    return DataError(
        f"the {part} text is shorter than one context of {context} positions",
        where=where,
        next=f"{hint}, or a smaller --context",
    )
