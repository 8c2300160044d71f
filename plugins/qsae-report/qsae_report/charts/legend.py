"""The legend: what belongs to which name, in as many rows as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qsae_report.charts.palette import Mark
from qsae_report.charts.primitives import FONT_SIZE, Circle, Polyline, Primitive, Rect, Text
from qsae_report.charts.text import cut, printable, width

KEY, GAP, APART, ROW = 26.0, 7.0, 20.0, 19.0
"""Pixels: of a sample of the line, before the name, between entries, of a row."""
BREAKS = "/ -,"
"""Characters behind which a name may go on in a second row."""


@dataclass(frozen=True)
class Entry:
    """A name, and how what it names is drawn; neither dash nor mark: a filled area."""

    name: str
    color: int
    dash: tuple[float, ...] | None = None
    mark: Mark | None = None


def legend(entries: Sequence[Entry], left: float, top: float, room: float) -> tuple[list[Primitive], float]:
    """What is drawn, and how high it is; entries without a name are left out."""
    named = [entry for entry in entries if entry.name]
    if not named:
        return [], 0.0
    items: list[Primitive] = []
    x, row = left, 0
    for entry in named:
        whole = printable(entry.name)
        lines = _lines(whole, room - KEY - GAP)
        wide = KEY + GAP + max(width(line, FONT_SIZE) for line in lines)
        if x > left and x + wide > left + room:
            x, row = left, row + 1
        base = top + row * ROW + 13
        items += _key(entry, x, base - 4)
        for number, line in enumerate(lines):
            hover = whole if "".join(lines) != whole else ""
            items.append(Text(x + KEY + GAP, base + number * ROW, line, whole=hover))
        row += len(lines) - 1
        x = left + room if len(lines) > 1 else x + wide + APART  # what follows two rows begins a new one
    return items, (row + 1) * ROW


def _lines(name: str, room: float) -> list[str]:
    """A name in one row or in two; one that is too long for these is cut."""
    if width(name, FONT_SIZE) <= room:
        return [name]
    for end in range(len(name) - 1, 0, -1):
        halves = [name[:end], name[end:]]
        if name[end - 1] in BREAKS and all(width(half, FONT_SIZE) <= room for half in halves):
            return halves
    return [cut(name, FONT_SIZE, room)]


def _key(entry: Entry, x: float, y: float) -> list[Primitive]:
    items: list[Primitive] = []
    if entry.dash is not None:
        items.append(Polyline(((x, y), (x + KEY, y)), entry.color, dash=entry.dash))
    if entry.mark is not None:
        items.append(Circle(x + KEY / 2, y, entry.color, entry.mark))
    if not items:
        items.append(Rect(x + KEY - 14, y - 5, 14, 10, entry.color))
    return items
