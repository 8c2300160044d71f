"""Lines and points, laid out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from qsae_report.charts.chart import Curves, Series, looks
from qsae_report.charts.clip import clipped, thinned
from qsae_report.charts.frame import Content, Frame, frame
from qsae_report.charts.labels import Label, placed
from qsae_report.charts.legend import Entry
from qsae_report.charts.palette import DASHES, MARKS
from qsae_report.charts.primitives import Circle, Line, Point, Polyline, Primitive
from qsae_report.charts.text import printable
from qsae_report.charts.ticks import number_text
from qsae_report.charts.words import left_out, outside

CAP = 3.0
"""Half the width of the end of an error bar."""
POINTS_A_PIXEL = 2
"""Above which a line is thinned to what can be seen."""


def values(chart: Curves, series: Series) -> list[tuple[float, float] | None]:
    """The series' values in the order of its x; None where one has no place on the axes."""
    found: list[tuple[float, float] | None] = []
    for x, y in zip(series.x, series.y, strict=True):
        found.append(
            (float(x), float(y)) if y is not None and chart.x.holds(x) and chart.y.holds(y) else None
        )
    return found


def lay_out_curves(chart: Curves, wide: float, high: float) -> tuple[Frame, list[Primitive]]:
    """The frame, and what is drawn in it."""
    drawn = [[value for value in values(chart, series) if value is not None] for series in chart.series]
    numbers = looks(chart.series)
    content = Content(
        chart.title,
        chart.x,
        chart.y,
        [x for own in drawn for x, _ in own],
        [y for own in drawn for _, y in own] + list(_bar_ends(chart)),
        [
            _entry(series, look, len(own))
            for series, look, own in zip(chart.series, numbers, drawn, strict=True)
            if series.legend
        ],
        [*chart.notes, *left_out(chart), *outside(chart, drawn)],
        margin=any(series.points for series in chart.series),
        rules=chart.rules,
    )
    around = frame(content, wide, high)
    if around.x is None or around.y is None:
        return around, []
    lines: list[Polyline] = []
    bars: list[Line] = []
    marks: list[Circle] = []
    labels: list[Label] = []
    for series, look in zip(chart.series, numbers, strict=True):
        lines += _lines(chart, series, look, around)
        bars += _bars(chart, series, look, around)
        own = _marks(chart, series, look, around)
        marks += own.values()
        texts = series.labels or ()
        labels += [Label(own[i], printable(text)) for i, text in enumerate(texts) if i in own and text]
    return around, [*lines, *bars, *marks, *placed(labels, marks, lines, around.box)]


def _entry(series: Series, look: int, known: int) -> Entry:
    """What the legend shows; of a single value no line, which there is none of."""
    line = DASHES[look % len(DASHES)] if series.line and known != 1 else None
    mark = MARKS[look % len(MARKS)] if series.points or line is None else None
    return Entry(series.name, look, line, mark)


def _lines(chart: Curves, series: Series, look: int, around: Frame) -> Iterator[Polyline]:
    if not series.line or around.x is None or around.y is None:
        return
    for stretch in _stretches(chart, series):
        points = [(around.x.at(x), around.y.at(y)) for x, y in stretch]
        if all(a[0] <= b[0] for a, b in itertools.pairwise(points)):
            points = thinned(points, int(POINTS_A_PIXEL * (around.box.right - around.box.left)))
        for part in clipped(points, around.box):
            if len(part) > 1:
                yield Polyline(tuple(part), look, dash=DASHES[look % len(DASHES)])


def _stretches(chart: Curves, series: Series) -> list[list[Point]]:
    """Values that follow one another without an undefined one between."""
    found: list[list[Point]] = [[]]
    for value in values(chart, series):
        if value is None:
            found.append([])
        else:
            found[-1].append(value)
    return [stretch for stretch in found if stretch]


def _marks(chart: Curves, series: Series, look: int, around: Frame) -> dict[int, Circle]:
    """Which value -> its mark. A value between two undefined ones has one, since no line shows it."""
    if around.x is None or around.y is None:
        return {}
    known = values(chart, series)
    found = {}
    for i, value in enumerate(known):
        if value is None or not (around.x.shows(value[0]) and around.y.shows(value[1])):
            continue
        beside = [known[j] for j in (i - 1, i + 1) if 0 <= j < len(known)]
        if series.points or not series.line or not any(beside):
            at = around.x.at(value[0]), around.y.at(value[1])
            mark = MARKS[look % len(MARKS)]
            found[i] = Circle(*at, look, mark, hover=_hover(chart, series, i))
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


def _error_spans(chart: Curves, series: Series) -> Iterator[tuple[float, float, float]]:
    """x, lower and upper end of each error bar, of which a logarithmic axis may not hold the lower."""
    for value, error in zip(values(chart, series), series.error or (), strict=False):
        if value is None or error is None or not 0 < error < float("inf"):
            continue
        yield value[0], value[1] - error, value[1] + error


def _bar_ends(chart: Curves) -> Iterator[float]:
    for series in chart.series:
        for _, low, high in _error_spans(chart, series):
            yield from (end for end in (low, high) if chart.y.holds(end))


def _bars(chart: Curves, series: Series, look: int, around: Frame) -> Iterator[Line]:
    """Error bars; one that goes beyond the axis has no cap there."""
    if around.x is None or around.y is None:
        return
    for at, low, high in _error_spans(chart, series):
        if not around.x.shows(at) or high < around.y.low or low > around.y.high:
            continue
        x = around.x.at(at)
        bottom = around.y.at(max(low, around.y.low))
        top = around.y.at(min(high, around.y.high))
        yield Line(x, bottom, x, top, look, 1.25)
        for end, y in ((low, bottom), (high, top)):
            if around.y.shows(end):
                yield Line(x - CAP, y, x + CAP, y, look, 1.25)
