"""Packing: ragged documents in, full contexts out.

C contexts, T positions of a context. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Position = Any
"""Where to go on behind a document: JSON values that only the text they came from understands."""

FRAME, READ, COUNTED = 0, 1, 2
"""What a position is: a special token of the frame; a document's token that is only read; one that counts."""


class Entry(NamedTuple):
    """A tokenized document in a stream."""

    behind: Position
    number: int
    """Tells the documents of a stream apart."""
    tokens: Tokens
    counted: NDArray[np.bool_] | None = None
    """Of each token, whether training and metrics use it; None: all."""


@dataclass(frozen=True)
class Frame:
    """The form of a context.

    Attributes:
        context: positions T, special ones included.
        first: token that each context begins with (BOS, CLS), or None.
        last: token that each context ends with (SEP of an encoder), or None.
        separator: token between two documents (EOS, BOS, SEP), or None.
    """

    context: int
    first: int | None = None
    last: int | None = None
    separator: int | None = None

    @property
    def room(self) -> int:
        """Positions of a context that are left for the documents."""
        return self.context - sum(token is not None for token in (self.first, self.last))


@dataclass(frozen=True)
class Contexts:
    """Full contexts, and what each position of them is.

    Attributes:
        ids: int32 [C, T].
        owners: int64 [C, T]: number of the document that a position belongs to: a separator to the document
            behind it, the first and last token of a context to that of their neighbour.
        kinds: int8 [C, T]: FRAME, READ or COUNTED.
    """

    ids: Tokens
    owners: NDArray[np.int64]
    kinds: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> Contexts:
        return Contexts(self.ids[rows], self.owners[rows], self.kinds[rows])

    @property
    def documents(self) -> NDArray[np.int64]:
        """int64 [C, T]: the number of the document that each token is from, -1 of special ones."""
        return np.where(self.kinds == FRAME, -1, self.owners)

    @property
    def segments(self) -> NDArray[np.int64]:
        """int64 [C, T]: 0, 1, ...: the parts that are of one document each; a separator begins one."""
        begins = (self.owners[:, 1:] != self.owners[:, :-1]) | (self.kinds[:, 1:] == FRAME)
        return np.concatenate([np.zeros((len(self), 1), bool), begins], axis=1).cumsum(1, dtype=np.int64)


class Packer:
    """Joins documents into one stream and cuts it into contexts of exactly `frame.context` tokens.

    What is left over at the end of the stream, less than a context, is dropped.

    Example: context 4, first = separator = 0, documents [1 2] and [3 4 5 6]
    -> the stream 1 2 0 3 4 5 6, contexts [0 1 2 0] and [0 3 4 5]; the 6 is dropped.

    Where it stands is two values, from which another packer goes on:

    Attributes:
        position: where to enter the documents, so that the last one taken comes first again.
        remaining: tokens of that document (and of the separator before it) that are not yet given out;
            None before the first document.

    Args:
        documents: from `position` on.
        frame: the form of a context.
        position: as above, of the packer to continue; None: the beginning.
        remaining: as above.
    """

    def __init__(
        self,
        documents: Iterable[Entry],
        frame: Frame,
        position: Position = None,
        remaining: int | None = None,
    ) -> None:
        self.frame, self.position, self.remaining = frame, position, remaining
        self._documents = iter(documents)
        self._behind = position
        self._resumes = remaining is not None
        self._rest = np.empty((3, 0), dtype=np.int64)  # rows: ids, owners, kinds

    def take(self, n_contexts: int) -> Contexts:
        """The next contexts; fewer than `n_contexts` only where the documents end."""
        room, wanted = self.frame.room, n_contexts * self.frame.room
        parts, have = [self._rest], self._rest.shape[1]
        while have < wanted and (piece := self._pull()) is not None:
            parts.append(piece)
            have += piece.shape[1]
        stream = np.concatenate(parts, axis=1)
        count = min(n_contexts, have // room)
        # What is left lies in the last document taken, unless the documents have ended.
        self._rest = stream[:, count * room :].copy()
        if self.remaining is not None and not self._resumes:
            self.remaining = self._rest.shape[1]
        return self._framed(stream[:, : count * room].reshape(3, count, room))

    def _framed(self, bodies: NDArray[np.int64]) -> Contexts:
        """Contexts out of [3, C, room]."""
        parts = [bodies]
        if self.frame.first is not None:
            parts.insert(0, _beside(bodies[:, :, :1], self.frame.first))
        if self.frame.last is not None:
            parts.append(_beside(bodies[:, :, -1:], self.frame.last))
        ids, owners, kinds = np.concatenate(parts, axis=2)
        return Contexts(ids.astype(np.int32), owners, kinds.astype(np.int8))

    def _pull(self) -> NDArray[np.int64] | None:
        """The next document behind its separator; the first one only as far as it remains."""
        entry = next(self._documents, None)
        if entry is None:
            return None
        self.position, self._behind = self._behind, entry.behind
        first, separator = self.remaining is None, self.frame.separator
        piece = np.empty((3, len(entry.tokens)), dtype=np.int64)
        piece[0], piece[1] = entry.tokens, entry.number
        piece[2] = COUNTED if entry.counted is None else np.where(entry.counted, COUNTED, READ)
        if first:
            self.remaining = 0
            return piece
        if separator is not None:
            begin = np.array([[separator], [entry.number], [FRAME]], dtype=np.int64)
            piece = np.concatenate([begin, piece], axis=1)
        if self._resumes:
            assert self.remaining is not None
            self._resumes = False
            piece = piece[:, piece.shape[1] - min(self.remaining, piece.shape[1]) :]
        return piece


def _beside(neighbours: NDArray[np.int64], token: int) -> NDArray[np.int64]:
    """[3, C, 1]: a special token beside positions of that shape, of the same documents."""
    _, owners, kinds = neighbours
    return np.stack([np.full_like(owners, token), owners, np.full_like(kinds, FRAME)])


def pack(documents: Iterable[Tokens], frame: Frame) -> Contexts:
    """All contexts of the documents at once."""
    packer = Packer((Entry(n + 1, n, tokens) for n, tokens in enumerate(documents)), frame)
    parts = list(_until_empty(packer)) or [packer.take(0)]
    return Contexts(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "owners", "kinds"))
    )


def _until_empty(packer: Packer, at_once: int = 256) -> Iterator[Contexts]:
    while len(contexts := packer.take(at_once)):
        yield contexts
