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


def _one(token: int | None) -> Tokens:
    return np.array([] if token is None else [token], dtype=np.int32)


class Packer:
    """Joins documents into one stream and cuts it into contexts of exactly `frame.context` tokens.

    What is left over at the end of the stream, less than a context, is dropped.

    Example: context 4, first = separator = 0, documents [1 2] and [3 4 5 6]
    -> the stream 1 2 0 3 4 5 6, contexts [0 1 2 0] and [0 3 4 5]; the 6 is dropped.

    Args:
        documents: pairs (position, tokens); the position is handed back by `position`, and stands for
            "this document and all before it are consumed".
        frame: the form of a context.
        position: where the documents begin.
        rest: what an earlier packer's `rest` held at that position.
    """

    def __init__(
        self,
        documents: Iterable[tuple[int, Tokens]],
        frame: Frame,
        position: int = 0,
        rest: Iterable[int] | None = None,
    ) -> None:
        self.frame, self.position = frame, position
        self._documents = iter(documents)
        self._rest = None if rest is None else np.fromiter(rest, dtype=np.int32)

    @property
    def rest(self) -> list[int] | None:
        """Tokens taken from documents but not yet given out; None before the first document."""
        return None if self._rest is None else [int(token) for token in self._rest]

    def take(self, n_contexts: int) -> Tokens:
        """The next contexts [C, T]; C is less than `n_contexts` only where the documents end."""
        room, wanted = self.frame.room, n_contexts * self.frame.room
        started = self._rest is not None
        parts = [_one(None) if self._rest is None else self._rest]
        have = len(parts[0])
        while have < wanted and (following := next(self._documents, None)) is not None:
            self.position, tokens = following
            added = [_one(self.frame.separator), tokens] if started else [tokens]
            parts += added
            have += sum(map(len, added))
            started = True
        stream = np.concatenate(parts)
        count = min(n_contexts, len(stream) // room)
        self._rest = stream[count * room :].copy() if started else None
        bodies = stream[: count * room].reshape(count, room)
        return np.concatenate(
            [np.tile(_one(self.frame.first), (count, 1)), bodies, np.tile(_one(self.frame.last), (count, 1))],
            axis=1,
        )


def pack(documents: Iterable[Tokens], frame: Frame) -> Tokens:
    """All contexts [C, T] of the documents at once."""
    packer = Packer(enumerate(documents, start=1), frame)
    return np.concatenate(list(_until_empty(packer)) or [packer.take(0)])


def _until_empty(packer: Packer, at_once: int = 256) -> Iterator[Tokens]:
    while len(contexts := packer.take(at_once)):
        yield contexts
