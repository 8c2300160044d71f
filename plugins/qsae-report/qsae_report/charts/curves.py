"""Lines and points, laid out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from qsae_report.charts.chart import Curves, Series, looks
from qsae_report.charts.clip import Box, clipped, thinned
from qsae_report.charts.frame import Content, Frame, frame
from qsae_report.charts.labels import Label, placed
from qsae_report.charts.legend import Entry
from qsae_report.charts.palette import DASHES, MARKS
from qsae_report.charts.primitives import Circle, Line, Point, Polyline, Primitive
from qsae_report.charts.scales import Scale
from qsae_report.charts.text import printable
from qsae_report.charts.ticks import number_text
from qsae_report.charts.words import left_out, outside

CAP = 3.0
"""Half the width of the end of an error bar."""
RING, MOST_RINGS = 3.0, 3
"""Pixels by which a labelled mark is larger for each of another series that lies on it, and how often."""
POINTS_A_PIXEL = 2
"""Above which a line is thinned to what can be seen."""


class Drawn(NamedTuple):
    """A series of a chart."""

    series: Series
    look: int
    """Number of its colour, dash and mark."""
    values: list[Point | None]
    """In the order of x; None where one has no place on the axes."""

    @property
    def known(self) -> list[Point]:
        """Those that have a place."""
        return [value for value in self.values if value is not None]

    @property
    def error_spans(self) -> Iterator[tuple[float, float, float]]:
        """x, lower and upper end of each error bar, of which a logarithmic axis may not hold the lower."""
        for value, error in zip(self.values, self.series.error or (), strict=False):
            if value is not None and error is not None and 0 < error < math.inf:
                yield value[0], value[1] - error, value[1] + error


def lay_out_curves(chart: Curves, wide: float, high: float) -> tuple[Frame, list[Primitive]]:
    """The frame, and what is drawn in it. Series that labels were to name have a legend where there is no
    room for all of these."""
    around, items, unnamed = _laid_out(chart, wide, high)
    if not unnamed:
        return around, items
    series = [
        s if s.legend or not s.labels else replace(s, legend=True, labels=[""] * len(s.labels))
        for s in chart.series
    ]
    return _laid_out(replace(chart, series=series), wide, high)[:2]


def _laid_out(chart: Curves, wide: float, high: float) -> tuple[Frame, list[Primitive], bool]:
    """The frame, what is drawn in it, and whether a series has neither label nor place in the legend."""
    all_drawn = [
        Drawn(series, look, _values(chart, series))
        for series, look in zip(chart.series, looks(chart.series), strict=True)
    ]
    around = frame(_content(chart, all_drawn), wide, high)
    if around.x is None or around.y is None:
        return around, [], False
    lines: list[Polyline] = []
    bars: list[Line] = []
    marks: list[Circle] = []
    labels: list[Label] = []
    alone = 0
    for drawn in all_drawn:
        lines += _lines(drawn, around.x, around.y, around.box)
        bars += _bars(drawn, around.x, around.y)
        own = _marks(chart, drawn, around.x, around.y)
        marks += own.values()
        texts = drawn.series.labels or ()
        found = [Label(own[i], printable(text)) for i, text in enumerate(texts) if i in own and text]
        labels += found
        alone += 0 if drawn.series.legend else len(found)
    if _names_points(chart):
        marks = _ringed(marks)
    texts_placed = placed(labels, marks, lines, around.box)
    unnamed = alone > 0 and len(texts_placed) < len(labels)
    return around, [*lines, *bars, *marks, *texts_placed], unnamed


def _content(chart: Curves, all_drawn: Sequence[Drawn]) -> Content:
    known = [drawn.known for drawn in all_drawn]
    bar_ends = [
        end for drawn in all_drawn for _, *ends in drawn.error_spans for end in ends if chart.y.holds(end)
    ]
    return Content(
        chart.title,
        chart.x,
        chart.y,
        [x for own in known for x, _ in own],
        [y for own in known for _, y in own] + bar_ends,
        [_entry(drawn, len(own)) for drawn, own in zip(all_drawn, known, strict=True) if drawn.series.legend],
        [*chart.notes, *left_out(chart), *outside(chart, known)],
        margin=any(series.points for series in chart.series),
        rules=chart.rules,
    )


def _names_points(chart: Curves) -> bool:
    """Whether points are of coders, each named."""
    return any(series.points and series.labels for series in chart.series)


def _ringed(marks: Sequence[Circle]) -> list[Circle]:
    """Marks of which one that lies below others of other series stands out around them."""
    found = []
    for number, mark in enumerate(marks):
        above = {
            other.color
            for other in marks[number + 1 :]
            if other.color != mark.color and math.hypot(other.x - mark.x, other.y - mark.y) < mark.radius
        }
        found.append(replace(mark, radius=mark.radius + RING * min(len(above), MOST_RINGS)))
    return found


def _values(chart: Curves, series: Series) -> list[Point | None]:
    return [
        (float(x), float(y)) if y is not None and chart.x.holds(x) and chart.y.holds(y) else None
        for x, y in zip(series.x, series.y, strict=True)
    ]


def _entry(drawn: Drawn, known: int) -> Entry:
    """What the legend shows; of a single value no line, which there is none of."""
    series, look = drawn.series, drawn.look
    line = DASHES[look % len(DASHES)] if series.line and known != 1 else None
    mark = MARKS[look % len(MARKS)] if series.points or line is None else None
    return Entry(series.name, look, line, mark)


def _lines(drawn: Drawn, x: Scale, y: Scale, box: Box) -> Iterator[Polyline]:
    dash = DASHES[drawn.look % len(DASHES)]
    for stretch in _stretches(drawn.values) if drawn.series.line else ():
        points = [(x.at(a), y.at(b)) for a, b in stretch]
        if all(a[0] <= b[0] for a, b in itertools.pairwise(points)):
            points = thinned(points, int(POINTS_A_PIXEL * (box.right - box.left)))
        for part in clipped(points, box):
            if len(part) > 1:
                yield Polyline(tuple(part), drawn.look, dash=dash)


def _stretches(values: Sequence[Point | None]) -> list[list[Point]]:
    """Values that follow one another without an undefined one between."""
    found: list[list[Point]] = [[]]
    for value in values:
        if value is None:
            found.append([])
        else:
            found[-1].append(value)
    return [stretch for stretch in found if stretch]


def _marks(chart: Curves, drawn: Drawn, x: Scale, y: Scale) -> dict[int, Circle]:
    """Which value -> its mark. A value between two undefined ones has one, since no line shows it."""
    every = drawn.series.points or not drawn.series.line
    padded = [None, *drawn.values, None]
    mark = MARKS[drawn.look % len(MARKS)]
    found = {}
    for i, (before, value, after) in enumerate(zip(padded, padded[1:], padded[2:], strict=False)):
        if value is None or not (every or (before is None and after is None)):
            continue
        if x.shows(value[0]) and y.shows(value[1]):
            hover = _hover(chart, drawn.series, i)
            found[i] = Circle(x.at(value[0]), y.at(value[1]), drawn.look, mark, hover=hover)
    return found


def _hover(chart: Curves, series: Series, i: int) -> str:
    y, error = series.y[i], series.error[i] if series.error is not None else None
    assert y is not None
    said = f"{chart.y.label} {number_text(y, chart.y.format, 4)}"
    said += (
        f" ± {number_text(error, chart.y.format, 2)}" if error is not None and math.isfinite(error) else ""
    )
    parts = [
        series.name,
        series.labels[i] if series.labels else "",
        f"{chart.x.label} {number_text(series.x[i], chart.x.format, 4)}",
        said,
    ]
    return printable("; ".join(part for part in parts if part))


def _bars(drawn: Drawn, x: Scale, y: Scale) -> Iterator[Line]:
    """Error bars; one that goes beyond the axis has no cap there."""
    for at, low, high in drawn.error_spans:
        if not x.shows(at) or high < y.low or low > y.high:
            continue
        across, bottom, top = x.at(at), y.at(max(low, y.low)), y.at(min(high, y.high))
        yield Line(across, bottom, across, top, drawn.look, 1.25)
        for end, upward in ((low, bottom), (high, top)):
            if y.shows(end):
                yield Line(across - CAP, upward, across + CAP, upward, drawn.look, 1.25)
