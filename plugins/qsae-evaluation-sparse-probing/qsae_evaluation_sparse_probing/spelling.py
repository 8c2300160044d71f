"""Which characters of a document each token of the language model spells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

Decode = Callable[[Sequence[int]], str]
UNKNOWN = "\ufffd"
"""What decoders write for bytes that are a part of a character."""


class Spelled(NamedTuple):
    """A document's text, and of each token where it stands there: from, and up to before."""

    text: str
    spans: list[tuple[int, int]]


class Speller:
    """Text of tokens, one after the other; what a token spells is looked up once.

    Many tokenizers drop the space before the first token that they decode. So a document's first token is
    decoded alone, and every other one behind a fixed token, whose own text is taken away again.

    Args:
        decode: ``LanguageModel.decode``.
    """

    def __init__(self, decode: Decode) -> None:
        self.decode = decode
        self.pieces: dict[int, str] = {}
        self.fixed: tuple[int, str] | None = None

    def spell(self, ids: Sequence[int]) -> Spelled:
        """The text of a document's tokens. Tokens that hold parts of one character stand at one place."""
        if self.fixed is None:
            self.fixed = self._fixed_of(ids)
        text: list[str] = []
        spans: list[tuple[int, int]] = []
        start = length = 0
        while start < len(ids):
            end = start + 1
            piece = self._piece(ids[start]) if start else self.decode([ids[0]])
            if UNKNOWN in piece:
                while end < len(ids) and UNKNOWN in self._piece(ids[end]):
                    end += 1
                piece = self._behind_fixed(ids[start:end]) if start else self.decode(ids[:end])
            text.append(piece)
            spans += [(length, length + len(piece))] * (end - start)
            start, length = end, length + len(piece)
        return Spelled("".join(text), spans)

    def _fixed_of(self, ids: Sequence[int]) -> tuple[int, str] | None:
        """The first token that spells plain characters, and these."""
        for token in ids:
            alone = self.decode([token])
            if alone.isascii() and alone.strip():
                return token, alone
        return None

    def _piece(self, token: int) -> str:
        if token not in self.pieces:
            self.pieces[token] = self._behind_fixed([token])
        return self.pieces[token]

    def _behind_fixed(self, ids: Sequence[int]) -> str:
        if self.fixed is None:  # nothing that was seen spells a plain character
            return self.decode(ids)
        token, own = self.fixed
        both = self.decode([token, *ids])
        return both[len(own) :] if both.startswith(own) else self.decode(ids)
