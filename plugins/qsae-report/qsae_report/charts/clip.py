"""What of a line is within a rectangle, and what of many points can be seen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from qsae_report.charts.primitives import Point


class Box(NamedTuple):
    """The rectangle of a chart in which values are drawn."""

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, point: Point, slack: float = 1e-6) -> bool:
        """Whether a point is in it, its border included."""
        x, y = point
        return self.left - slack <= x <= self.right + slack and self.top - slack <= y <= self.bottom + slack


def clipped(points: Sequence[Point], box: Box) -> list[list[Point]]:
    """The parts of a polyline that are within the box; a single point is a part where it is within."""
    if len(points) == 1:
        return [[points[0]]] if box.holds(points[0]) else []
    parts: list[list[Point]] = []
    for one, other in itertools.pairwise(points):
        segment = _segment(one, other, box)
        if segment is None:
            continue
        if parts and parts[-1][-1] == segment[0]:
            parts[-1].append(segment[1])
        else:
            parts.append(list(segment))
    return parts


def _segment(one: Point, other: Point, box: Box) -> tuple[Point, Point] | None:
    """Liang and Barsky: the part of a segment for which all four borders are kept."""
    (x, y), dx, dy = one, other[0] - one[0], other[1] - one[1]
    enter, leave = 0.0, 1.0
    for step, room in ((-dx, x - box.left), (dx, box.right - x), (-dy, y - box.top), (dy, box.bottom - y)):
        if step == 0:
            if room < 0:
                return None
            continue
        share = room / step
        if step < 0:
            enter = max(enter, share)
        else:
            leave = min(leave, share)
    if enter > leave:
        return None
    first = one if enter == 0 else (x + enter * dx, y + enter * dy)
    last = other if leave == 1 else (x + leave * dx, y + leave * dy)
    return first, last


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Points in the order of x, of which every column of pixels keeps the first, the last, the highest and
    the lowest: what is drawn looks the same.

    Args:
        most: points above which this is done.
    """
    if len(points) <= most:
        return list(points)
    columns: dict[int, list[Point]] = {}
    for point in points:
        columns.setdefault(int(point[0]), []).append(point)
    kept = []
    for column in columns.values():
        chosen = {0, len(column) - 1}
        chosen |= {min(range(len(column)), key=lambda i: column[i][1])}
        chosen |= {max(range(len(column)), key=lambda i: column[i][1])}
        kept += [column[i] for i in sorted(chosen)]
    return kept
