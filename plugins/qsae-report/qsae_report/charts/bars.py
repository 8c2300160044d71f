"""Histograms, laid out."""

from __future__ import annotations

from collections.abc import Iterator

from qsae_report.charts.chart import Bars, Histogram, looks
from qsae_report.charts.clip import Box, clipped
from qsae_report.charts.frame import Content, Frame, frame
from qsae_report.charts.legend import Entry
from qsae_report.charts.palette import DASHES
from qsae_report.charts.primitives import Area, Point, Polyline, Primitive, Rect
from qsae_report.charts.scales import Scale
from qsae_report.charts.text import printable
from qsae_report.charts.ticks import number_text
from qsae_report.charts.words import left_out_bins

OPACITY = 0.16
SLIT = 1.0
"""Pixels between two bars, where they are wide enough to have some."""
BELOW = 2.0
"""By which factor a logarithmic axis of counts begins below the least one, so that this has a bar too."""


def bins(chart: Histogram, group: Bars) -> Iterator[tuple[float, float, float]]:
    """Lower end, upper end and count of each bin that has a place on the axes; a count of 0 has none on a
    logarithmic one."""
    for low, high, count in zip(group.edges, group.edges[1:], group.counts, strict=False):
        if chart.x.holds(low) and chart.x.holds(high) and count is not None and chart.y.holds(count):
            yield float(low), float(high), float(count)


def lay_out_histogram(chart: Histogram, wide: float, high: float) -> tuple[Frame, list[Primitive]]:
    """The frame, and what is drawn in it."""
    known = [list(bins(chart, group)) for group in chart.groups]
    counts = [count for own in known for _, _, count in own]
    single, numbers = len(chart.groups) == 1, looks(chart.groups)
    base = [min(counts) / BELOW if chart.y.log else 0.0] if counts else []
    content = Content(
        chart.title,
        chart.x,
        chart.y,
        [end for own in known for low, up, _ in own for end in (low, up)],
        counts + base,
        [_entry(group, look, single) for group, look in zip(chart.groups, numbers, strict=True)],
        [*chart.notes, *left_out_bins(chart)],
        margin=False,
        rules=chart.rules,
    )
    around = frame(content, wide, high)
    if around.x is None or around.y is None:
        return around, []
    if single:
        return around, list(_filled(chart, known[0], around.x, around.y, around.box, numbers[0]))
    areas: list[Primitive] = []
    outlines: list[Primitive] = []
    for look, own in zip(numbers, known, strict=True):
        for outline in _outlines(own, around.x, around.y, around.box):
            areas.append(Area(tuple(outline), look, OPACITY))
            outlines.append(Polyline(tuple(outline), look, dash=DASHES[look % len(DASHES)]))
    return around, areas + outlines


def _entry(group: Bars, look: int, single: bool) -> Entry:
    return Entry(group.name, look, None if single else DASHES[look % len(DASHES)])


def _filled(
    chart: Histogram, known: list[tuple[float, float, float]], x: Scale, y: Scale, box: Box, look: int
) -> Iterator[Rect]:
    for low, high, count in known:
        left, right = max(x.at(low), box.left), min(x.at(high), box.right)
        top = max(y.at(count), box.top)
        if right <= left or top >= box.bottom:
            continue
        slit = SLIT if right - left > 4 * SLIT else 0.0
        ends = (number_text(end, chart.x.format) for end in (low, high))
        hover = f"{' to '.join(ends)}: {number_text(count, chart.y.format, 4)}"
        yield Rect(left + slit / 2, top, right - left - slit, box.bottom - top, look, printable(hover))


def _outlines(known: list[tuple[float, float, float]], x: Scale, y: Scale, box: Box) -> Iterator[list[Point]]:
    """Steps over the bins, from the base line to the base line; one for each run of bins that touch."""
    steps: list[Point] = []
    before: float | None = None
    for low, high, count in known:
        if before is not None and low != before:
            yield from _closed(steps, box)
            steps = []
        if not steps:
            steps = [(x.at(low), box.bottom)]
        steps += [(x.at(low), y.at(count)), (x.at(high), y.at(count))]
        before = high
    yield from _closed(steps, box)


def _closed(steps: list[Point], box: Box) -> Iterator[list[Point]]:
    if steps:
        yield from clipped([*steps, (steps[-1][0], box.bottom)], box)
