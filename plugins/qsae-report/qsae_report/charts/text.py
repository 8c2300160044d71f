"""How wide a text is, and what is shown of a text that is too wide or does not belong into a picture."""

from __future__ import annotations

import unicodedata

# fmt: off
WIDTHS = (
    32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 34, 34, 84, 84, 84, 53, 100, 68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86, 75, 79,
    60, 79, 69, 63, 61, 73, 68, 99, 69, 61, 69, 39, 34, 39, 84, 50, 50, 61, 63, 55, 63, 62, 35, 63,
    63, 28, 28, 58, 28, 97, 63, 61, 63, 63, 41, 52, 39, 63, 59, 82, 59, 59, 52, 64, 34, 64, 84,
)
# fmt: on
"""Of the characters from space to ~ in DejaVu Sans, in hundredths of its size. It is what matplotlib draws
with, and wider than the usual fonts of systems, so that what fits in it fits."""
WIDE, OTHER, BOLD = 1.0, 0.75, 1.12
"""Widths of East Asian characters and of all others, in sizes; how much wider bold is."""
ELLIPSIS = "…"
LOST = "�"


def width(text: str, size: float, *, bold: bool = False) -> float:
    """How many pixels a text takes, at most, in usual fonts."""
    units = sum(_width(character) for character in text)
    return units * size * (BOLD if bold else 1)


def _width(character: str) -> float:
    if " " <= character <= "~":
        return WIDTHS[ord(character) - 32] / 100
    if unicodedata.combining(character):
        return 0.0
    return WIDE if unicodedata.east_asian_width(character) in "WF" else OTHER


def cut(text: str, size: float, room: float, *, bold: bool = False) -> str:
    """The text, or its beginning and end around an ellipsis where it is wider than ``room``.

    Names differ in their ends as often as in their beginnings.
    """
    if width(text, size, bold=bold) <= room:
        return text
    for kept in range(len(text) - 1, 0, -1):
        end = kept // 3
        shown = text[: kept - end].rstrip() + ELLIPSIS + (text[-end:] if end else "")
        if width(shown, size, bold=bold) <= room:
            return shown
    return ELLIPSIS


def printable(text: str) -> str:
    """The text in one line, without what XML does not allow or what turns the direction of what follows."""
    joined = " ".join(text.split())
    return "".join(LOST if _is_unfit(character) else character for character in joined)


def _is_unfit(character: str) -> bool:
    code = ord(character)
    turns = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    return turns or unicodedata.category(character) in ("Cc", "Cs") or code & 0xFFFE == 0xFFFE


def wrapped(text: str, size: float, room: float) -> list[str]:
    """The text in lines that are no wider than ``room``; a single word that is wider is cut."""
    lines: list[str] = []
    for word in text.split():
        if lines and width(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(cut(word, size, room))
    return lines
