"""Text token by token: pieces which, joined, are what the tokens decode to.

A tokenizer decodes sequences, not tokens: a character may take several tokens (bytes), and a token on its
own may lose or gain a space. So pieces are proposed token by token, from a table, and taken where they join
to the decoded whole; else they are cut out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What an incomplete character decodes to."""
Decode = Callable[[Sequence[int]], str]


class Pieces:
    """The pieces of contexts.

    Args:
        decode: the text of a context's tokens.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._alone: dict[int, str] = {}  # a first token -> its piece
        self._behind: dict[tuple[int, ...], list[str]] = {}  # tokens behind others -> their pieces
        self._anchor: int | None = None

    def of(self, ids: Sequence[int]) -> list[str]:
        """A piece for each token. That of a token which begins a character and does not end it is empty: the
        character is the piece of the token that ends it."""
        text = self._decode(ids)
        proposed = self._proposed(ids)
        return proposed if "".join(proposed) == text else cut(self._decode, ids, text)

    def behind(self, token: int) -> str:
        """The piece of a token behind others."""
        return self._later((token,))[0]

    def _proposed(self, ids: Sequence[int]) -> list[str]:
        found: list[str] = []
        start = 0
        while start < len(ids):
            end = start + 1
            pieces = [self._first(ids[0])] if start == 0 else self._later((ids[start],))
            if BROKEN in pieces[0]:  # a character that goes on in the next tokens
                while end < len(ids) and BROKEN in self._later((ids[end],))[0]:
                    end += 1
                run = tuple(ids[start:end])
                pieces = cut(self._decode, run, self._decode(run)) if start == 0 else self._later(run)
            found += pieces
            start = end
        return found

    def _first(self, token: int) -> str:
        if token not in self._alone:
            self._alone[token] = self._decode([token])
        return self._alone[token]

    def _later(self, run: tuple[int, ...]) -> list[str]:
        """Pieces of tokens that stand behind some other one."""
        if run not in self._behind:
            anchor = self._anchor_token(run[0])
            before = self._decode([anchor])
            text = self._decode([anchor, *run]).removeprefix(before)
            self._behind[run] = (
                [text]
                if len(run) == 1
                else cut(lambda ids: self._decode([anchor, *ids]).removeprefix(before), run, text)
            )
        return self._behind[run]

    def _anchor_token(self, token: int) -> int:
        """A token that is whole characters by itself; the first one that was seen."""
        if self._anchor is None:
            whole = next((t for t, text in self._alone.items() if text.strip() and BROKEN not in text), None)
            if whole is None:
                return token
            self._anchor = whole
        return self._anchor


def cut(decode: Decode, ids: Sequence[int], text: str) -> list[str]:
    """The pieces of a text, each up to where the text of the tokens so far agrees with it."""
    pieces, done = [], 0
    for end in range(1, len(ids) + 1):
        known = len(text) if end == len(ids) else _agreeing(decode(ids[:end]), text)
        pieces.append(text[done:known])
        done = max(done, known)
    return pieces


def _agreeing(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
