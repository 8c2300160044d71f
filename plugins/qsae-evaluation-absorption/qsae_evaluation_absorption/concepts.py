"""Properties of tokens that their text decides."""

from __future__ import annotations

import keyword
import re
import string

NAMES = (
    "keyword",
    "leading_space",
    "upper_case",
    "digit",
    "dunder",
    *(f"starts_{c}" for c in string.ascii_lowercase),
)
"""Concepts, in the order of ``properties``."""
_DIGITS, _IDENTIFIER, _CONSTANT = (
    re.compile(pattern) for pattern in ("[0-9]+", "[A-Za-z_][A-Za-z0-9_]*", "[A-Z][A-Z0-9_]+")
)


def properties(token: str) -> list[bool]:
    """Which concepts hold of a token, looked at alone; all but ``leading_space`` of its text without
    whitespace at its ends.

    ``keyword``: a keyword of Python. ``leading_space``: a space, and then something else. ``upper_case``: a
    capital, and capitals, digits or underscores after it. ``digit``: digits alone. ``dunder``: two
    underscores somewhere. ``starts_a``: an identifier of ASCII, no keyword, that begins with ``a`` or ``A``.
    """
    text = token.strip()
    is_keyword = keyword.iskeyword(text)
    first = text[:1].lower() if _IDENTIFIER.fullmatch(text) and not is_keyword else ""
    return [
        is_keyword,
        token.startswith(" ") and text != "",
        _CONSTANT.fullmatch(text) is not None,
        _DIGITS.fullmatch(text) is not None,
        "__" in text,
        *(first == letter for letter in string.ascii_lowercase),
    ]
