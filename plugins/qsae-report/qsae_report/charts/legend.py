"""The legend: what belongs to which name, in as many rows as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qsae_report.charts.palette import Mark
from qsae_report.charts.primitives import FONT_SIZE, Circle, Polyline, Primitive, Rect, Text
from qsae_report.charts.text import cut, printable, width

KEY, GAP, APART, ROW = 26.0, 7.0, 20.0, 19.0
"""Pixels: of a sample of the line, before the name, between entries, of a row."""
LONGEST = 0.6
"""Share of the room's width that an entry takes at most; its name is cut there."""


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
        shown = cut(whole, FONT_SIZE, room * LONGEST - KEY - GAP)
        wide = KEY + GAP + width(shown, FONT_SIZE)
        if x > left and x + wide > left + room:
            x, row = left, row + 1
        base = top + row * ROW + 13
        items += _key(entry, x, base - 4)
        items.append(Text(x + KEY + GAP, base, shown, whole=whole if shown != whole else ""))
        x += wide + APART
    return items, (row + 1) * ROW


def _key(entry: Entry, x: float, y: float) -> list[Primitive]:
    items: list[Primitive] = []
    if entry.dash is not None:
        items.append(Polyline(((x, y), (x + KEY, y)), entry.color, dash=entry.dash))
    if entry.mark is not None:
        items.append(Circle(x + KEY / 2, y, entry.color, entry.mark))
    if not items:
        items.append(Rect(x + KEY - 14, y - 5, 14, 10, entry.color))
    return items
