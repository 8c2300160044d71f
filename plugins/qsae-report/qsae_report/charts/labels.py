"""Texts beside points, where there is room for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qsae_report.charts.clip import Box
from qsae_report.charts.primitives import Anchor, Circle, Point, Polyline, Text
from qsae_report.charts.text import width

SIZE, STRIDE, BEYOND = 11.0, 4.0, 6.0
"""Pixels: of a text; between two points of a line that a text must not meet; that a text may stand out."""
PLACES: tuple[tuple[float, float, Anchor], ...] = (
    (7, -6, "start"),
    (-7, -6, "end"),
    (7, 13, "start"),
    (-7, 13, "end"),
    (0, -9, "middle"),
    (0, 18, "middle"),
    (9, 4, "start"),
    (-9, 4, "end"),
)
"""From a point to its text's base line, in the order in which they are tried."""


@dataclass(frozen=True)
class Label:
    """A text that belongs to a point."""

    of: Circle
    text: str


def placed(
    labels: Sequence[Label], marks: Sequence[Circle], lines: Sequence[Polyline], box: Box
) -> list[Text]:
    """Texts that meet neither one another, nor a mark, nor a line, and are within the box.

    Others are left out, since a mark's hover has its label as well.
    """
    taken = [Box(m.x - m.radius, m.y - m.radius, m.x + m.radius, m.y + m.radius) for m in marks]
    points = [point for line in lines for point in _along(line)]
    found = []
    for label in labels:
        for dx, dy, anchor in PLACES:
            x, y = label.of.x + dx, label.of.y + dy
            area = _area(x, y, label.text, anchor)
            if (
                _within(area, box)
                and not any(_meet(area, other) for other in taken)
                and not any(area.holds(p) for p in points)
            ):
                taken.append(area)
                found.append(Text(x, y, label.text, anchor, SIZE, color="ink"))
                break
    return found


def _along(line: Polyline) -> Iterator[Point]:
    """Points of a line, no further apart than a letter."""
    for (x, y), (to_x, to_y) in itertools.pairwise(line.points):
        number = 1 + int(max(abs(to_x - x), abs(to_y - y)) / STRIDE)
        for i in range(number + 1):
            yield x + (to_x - x) * i / number, y + (to_y - y) * i / number


def _within(area: Box, box: Box) -> bool:
    """Whether a text lies among the values; it may stand out a little to the right and above."""
    beyond = area.left < box.left or area.right > box.right + BEYOND or area.top < box.top - BEYOND
    return not beyond and area.bottom <= box.bottom


def _area(x: float, y: float, text: str, anchor: Anchor) -> Box:
    wide = width(text, SIZE)
    left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * wide
    return Box(left, y - 0.8 * SIZE, left + wide, y + 0.2 * SIZE)


def _meet(one: Box, other: Box) -> bool:
    return (
        one.left < other.right
        and other.left < one.right
        and one.top < other.bottom
        and other.top < one.bottom
    )
