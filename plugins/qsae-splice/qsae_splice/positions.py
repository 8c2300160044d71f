"""At which positions an edit holds: the words for it. Imports no torch."""

from __future__ import annotations

import re
from typing import NamedTuple

from qsae_core.errors import ConfigError

WORDS = ("all", "prompt", "generated", "last")
ALLOWED = "all, prompt, generated, last, I:J (absolute, as 3:7, 2: or -4:), or token:/REGEX/"
_RANGE = re.compile(r"(-?\d+)?:(-?\d+)?")
_TOKEN = re.compile(r"token:/(.+)/", re.DOTALL)


class Positions(NamedTuple):
    """Positions of a sequence, counted from 0 at its first real token (BOS, where it begins with one).

    Padding is not counted, and a cache does not begin the count anew. Special tokens are never edited.
    """

    word: str
    """One of ``WORDS``: ``last`` is the last position of the prompt; or ``range`` or ``token``."""
    start: int | None = None
    """Of a range; a negative number counts back from the end of the prompt."""
    stop: int | None = None
    """Of a range, behind its last position."""
    pattern: re.Pattern[str] | None = None
    """What is searched for in a token's text."""


def read_positions(text: str) -> Positions:
    """What a text names.

    Raises:
        ConfigError: if it names none.
    """
    if text in WORDS:
        return Positions(text)
    found = _TOKEN.fullmatch(text)
    if found:
        try:
            return Positions("token", pattern=re.compile(found[1]))
        except re.error as error:
            raise ConfigError(
                f"{found[1]!r} is no regular expression: {error}", where=f"positions {text}", allowed=ALLOWED
            ) from error
    found = _RANGE.fullmatch(text)
    if found and text != ":":
        start, stop = (None if part is None else int(part) for part in found.groups())
        return Positions("range", start, stop)
    raise ConfigError(f"there are no positions {text!r}", where="positions", allowed=ALLOWED)
