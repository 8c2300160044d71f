"""Packing: ragged documents in, full contexts out.

C contexts, T positions of a context. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


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
        return self.context - len(_one(self.first)) - len(_one(self.last))

    def labelled(self, label: int) -> Frame:
        """A frame of the same form with one label for every special token: it packs what goes with tokens."""
        first, last, separator = (
            None if token is None else label for token in (self.first, self.last, self.separator)
        )
        return Frame(self.context, first, last, separator)


def _one(token: int | None) -> Tokens:
    return np.array([] if token is None else [token], dtype=np.int32)


class Packer:
    """Joins documents into one stream and cuts it into contexts of exactly `frame.context` tokens.

    What is left over at the end of the stream, less than a context, is dropped.

    Example: context 4, first = separator = 0, documents [1 2] and [3 4 5 6]
    -> the stream 1 2 0 3 4 5 6, contexts [0 1 2 0] and [0 3 4 5]; the 6 is dropped.

    Where it stands is two numbers, from which another packer goes on:

    Attributes:
        position: where to enter the documents, so that the last one taken comes first again.
        remaining: tokens of that document (and of the separator before it) that are not yet given out;
            None before the first document.

    Args:
        documents: pairs (position behind the document, tokens), from `position` on.
        frame: the form of a context.
        position: as above, of the packer to continue, or 0.
        remaining: as above.
    """

    def __init__(
        self,
        documents: Iterable[tuple[int, Tokens]],
        frame: Frame,
        position: int = 0,
        remaining: int | None = None,
    ) -> None:
        self.frame, self.position, self.remaining = frame, position, remaining
        self._documents = iter(documents)
        self._behind = position
        self._resumes = remaining is not None
        self._rest = _one(None)

    def take(self, n_contexts: int) -> Tokens:
        """The next contexts [C, T]; C is less than `n_contexts` only where the documents end."""
        room, wanted = self.frame.room, n_contexts * self.frame.room
        parts, have = [self._rest], len(self._rest)
        while have < wanted and (piece := self._pull()) is not None:
            parts.append(piece)
            have += len(piece)
        stream = np.concatenate(parts)
        count = min(n_contexts, have // room)
        # What is left lies in the last document taken, unless the documents have ended.
        self._rest = stream[count * room :].copy()
        if self.remaining is not None and not self._resumes:
            self.remaining = len(self._rest)
        bodies = stream[: count * room].reshape(count, room)
        first, last = (np.tile(_one(token), (count, 1)) for token in (self.frame.first, self.frame.last))
        return np.concatenate([first, bodies, last], axis=1)

    def _pull(self) -> Tokens | None:
        """The next document behind its separator; the first one only as far as it remains."""
        following = next(self._documents, None)
        if following is None:
            return None
        self.position, (self._behind, tokens) = self._behind, following
        if self.remaining is None:
            self.remaining = 0
            return tokens
        piece = np.concatenate([_one(self.frame.separator), tokens])
        if self._resumes:
            self._resumes = False
            piece = piece[len(piece) - min(self.remaining, len(piece)) :]
        return piece


def pack(documents: Iterable[Tokens], frame: Frame) -> Tokens:
    """All contexts [C, T] of the documents at once."""
    packer = Packer(enumerate(documents, start=1), frame)
    return np.concatenate(list(_until_empty(packer)) or [packer.take(0)])


def _until_empty(packer: Packer, at_once: int = 256) -> Iterator[Tokens]:
    while len(contexts := packer.take(at_once)):
        yield contexts
