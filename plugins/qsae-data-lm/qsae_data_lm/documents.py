"""Streams of documents: the training part in a seeded order that can be entered anywhere, and the rest.

Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from qsae_core.errors import ConfigError, DataError
from qsae_data_lm import LmConfig
from qsae_data_lm.corpus import Document, builtin_documents
from qsae_data_lm.packing import Position
from qsae_data_lm.split import MARKS, HeldOutDocuments, Split, mark

Side = Literal["training", "held-out"]
Share = tuple[int, int]
"""(rank, world): what falls to one of several training processes."""
WHOLE: Share = (0, 1)


class Numbered(NamedTuple):
    """A document of a training stream."""

    behind: Position
    number: int
    """Its place in the order of the epoch, in which one process has gaps where another has documents."""
    document: Document


def open_documents(config: LmConfig, tokenizer: Any) -> Documents:
    """The text that a config asks for.

    Args:
        tokenizer: of transformers; its chat template renders conversations.

    Raises:
        ConfigError: if options are given that go with a dataset alone, and there is none.
        DataError: if it cannot be opened or holds no text.
    """
    _check_conversations(config)
    share = config.held_out_share
    if config.dataset is not None:
        from qsae_data_lm.datasets_text import dataset_documents

        return dataset_documents(config, tokenizer, Split(share))
    if config.text is not None:
        from qsae_data_lm.text_files import read_text

        documents, description = read_text(config.text)
        return LocalDocuments(documents, Split(share, (d.key for d in documents)), description)
    description = {"text": "the Python standard library's source and documentation"}
    return LocalDocuments(list(builtin_documents()), Split(share), description)


def _check_conversations(config: LmConfig) -> None:
    if config.chat_template is not None and config.dataset is None:
        raise ConfigError(
            "chat_template is given, and there is no dataset of conversations",
            where="data.chat_template",
            allowed="a dataset with a column of conversations",
            next="--dataset ID_OR_FILE",
        )
    if config.chat_template is None and config.roles != "all":
        raise ConfigError(
            f"roles is {config.roles!r}, and there is no chat template by which roles are known",
            where="data.roles",
            allowed="all, where text is read as it is",
            next="--chat-template own, for a dataset of conversations",
        )


class Form(NamedTuple):
    """How documents become tokens."""

    joined_by: Literal["end", "begin", "nothing"] = "end"
    """What stands between two of them: the tokenizer's token for an end or for a beginning, or what they
    hold themselves."""
    spell_special: bool = False
    """Whether they spell special tokens, which are read as such; all of them have ``spans`` then."""


PLAIN = Form()
"""Text as it is."""


class Documents(Protocol):
    """Where a source takes its text from."""

    in_memory: bool
    """Whether all documents are, so that their tokens may be kept too."""
    finite: bool
    """Whether their number is known."""
    form: Form

    def describe(self) -> dict[str, Any]:
        """JSON values for the run's record."""

    def beginning(self) -> Iterator[str]:
        """Texts by which the source is known again: all that are in memory, the first of a stream, or some of
        a table."""

    def size(self) -> dict[str, int]:
        """What the order of an epoch hangs on, where ``beginning`` does not tell it: name -> number."""

    def training(self, seed: int, epoch: int, start: Position, share: Share = WHOLE) -> Iterator[Numbered]:
        """Documents of an epoch; `start` is the place behind one, or None. The shares of all processes
        together are the documents of the whole, each of them once."""

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

    in_memory = finite = True
    form = PLAIN

    def __init__(self, documents: Sequence[Document], split: Split, description: dict[str, Any]) -> None:
        self._all, self._split, self._description = list(documents), split, description

    def describe(self) -> dict[str, Any]:
        """Where the text comes from, and how many documents are on each side of the split."""
        held_out, number = self._counts()
        return {**self._description, "documents": number, "held_out_documents": held_out}

    def beginning(self) -> Iterator[str]:
        """All texts."""
        return (document.text for document in self._all)

    def size(self) -> dict[str, int]:
        """Nothing that its texts do not tell."""
        return {}

    def training(self, seed: int, epoch: int, start: Position, share: Share = WHOLE) -> Iterator[Numbered]:
        """Every training document once, shuffled by seed and epoch."""
        order = shuffled(len(self._all), seed, epoch)
        rank, world = share
        for position in range(start or 0, len(order)):
            document = self._all[order[position]]
            if position % world == rank and not self._split.holds_out(document.key):
                yield Numbered(position + 1, position, document)

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


def shuffled(n: int, *seeds: int) -> NDArray[np.int64]:
    """A permutation of range(n) that is determined by the seeds."""
    return np.random.default_rng(seeds).permutation(n)


def too_little(documents: Documents, part: Side, context: int, where: str, share: Share = WHOLE) -> DataError:
    """The error for a side of the split that has not one context."""
    hint = "give more text" if part == "training" else "give more text, or a larger --held-out-share"
    found: Iterator[Any] = (
        documents.training(0, 0, None, share) if part == "training" else documents.held_out()
    )
    if share == WHOLE and next(found, None) is None:
        return DataError(
            f"no document is left for the {part} text: all are on the other side of the split, which keeps "
            "documents of the same text together",
            where=where,
            allowed="a text of several different documents",
            next=hint,
        )
    of_process = f" of process {share[0]} of {share[1]}" if share != WHOLE else ""
    return DataError(
        f"the {part} text{of_process} is shorter than one context of {context} positions",
        where=where,
        next=f"{hint}, or a smaller --context",
    )


def nothing_counts(part: Side, where: str) -> DataError:
    """The error for text that fills contexts, of which no position counts."""
    return DataError(
        f"no position of the {part} text counts",
        where=where,
        allowed="conversations in which someone with one of the `roles` says something",
        next="--roles all",
    )
