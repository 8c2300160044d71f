"""Charts in words: what a reader who sees no picture is told, and what a picture says was left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from qsae_report.charts.chart import Axis, Curves, Histogram
from qsae_report.charts.text import printable
from qsae_report.charts.ticks import number_text

DIGITS = 4


def describe(chart: Curves | Histogram) -> str:
    """Kind, axes with their ranges, and each series in a sentence."""
    if isinstance(chart, Histogram):
        sentences = ["Histogram.", *_groups(chart)]
    else:
        sentences = ["Line chart.", *_series(chart)]
    axes = f"Across: {_axis(chart.x)}. Upward: {_axis(chart.y)}."
    rules = [f"{rule.text}: at {number_text(rule.at, chart.x.format)}." for rule in chart.rules]
    said = [sentences[0], axes, *sentences[1:], *rules, *chart.notes]
    return printable(" ".join(said))


def _axis(axis: Axis) -> str:
    return f"{axis.label}, logarithmic" if axis.log else axis.label


def _series(chart: Curves) -> Iterator[str]:
    for series in chart.series:
        known = [
            (x, y)
            for x, y in zip(series.x, series.y, strict=True)
            if y is not None and chart.x.holds(x) and chart.y.holds(y)
        ]
        name = series.name or "One series"
        if not known:
            yield f"{name}: no values."
            continue
        (first_x, first), (last_x, last) = known[0], known[-1]
        least, most = min(y for _, y in known), max(y for _, y in known)
        texts = [number_text(x, chart.x.format, DIGITS) for x in (first_x, last_x)]
        values = [number_text(y, chart.y.format, DIGITS) for y in (first, last, least, most)]
        if len(known) == 1:
            yield f"{name}: one value, {values[0]} at {texts[0]}."
            continue
        yield (
            f"{name}: {len(known):,} values, from {values[0]} at {texts[0]} to {values[1]} at {texts[1]}; "
            f"least {values[2]}, greatest {values[3]}."
        )


def _groups(chart: Histogram) -> Iterator[str]:
    for group in chart.groups:
        name = group.name or "One group"
        counts = [(c, i) for i, c in enumerate(group.counts) if c is not None and math.isfinite(c)]
        if not any(count for count, _ in counts):
            yield f"{name}: no values."
            continue
        count, at = max(counts, key=lambda pair: (pair[0], -pair[1]))
        ends = [number_text(end, chart.x.format) for end in (group.edges[at], group.edges[at + 1])]
        full = [i for c, i in counts if c]
        span = [number_text(end, chart.x.format) for end in (group.edges[full[0]], group.edges[full[-1] + 1])]
        most = number_text(count, chart.y.format, DIGITS)
        yield f"{name}: values from {span[0]} to {span[1]}; most, {most}, from {ends[0]} to {ends[1]}."


def left_out(chart: Curves) -> Iterator[str]:
    """How many values have no place because an axis is logarithmic."""
    number = 0
    for series in chart.series:
        for x, y in zip(series.x, series.y, strict=True):
            finite = y is not None and math.isfinite(y) and math.isfinite(x)
            number += bool(finite and not (chart.x.holds(x) and chart.y.holds(y)))
    if number:
        log = chart.x.log or chart.y.log
        why = "not positive, and not shown on a logarithmic axis" if log else "too large to be shown"
        yield f"{_values(number)} {why}."


def left_out_bins(chart: Histogram) -> Iterator[str]:
    """How many counts lie in bins that have no place on a logarithmic axis."""
    lost = 0.0
    for group in chart.groups:
        for low, count in zip(group.edges, group.counts, strict=False):
            lost += count if count is not None and math.isfinite(count) and not chart.x.holds(low) else 0
    if lost:
        bins = "bins that begin at 0 or below, not shown on a logarithmic axis."
        yield f"{number_text(lost, chart.y.format)} in {bins}"


def outside(chart: Curves, drawn: Sequence[Sequence[tuple[float, float]]]) -> Iterator[str]:
    """How many values are beyond the ends that an axis was given."""
    number = sum(_beyond(chart.x, x) or _beyond(chart.y, y) for own in drawn for x, y in own)
    if number:
        yield f"{_values(number)} beyond the axes."


def _beyond(axis: Axis, value: float) -> bool:
    return (axis.low is not None and value < axis.low) or (axis.high is not None and value > axis.high)


def _values(number: int) -> str:
    return "1 value is" if number == 1 else f"{number:,} values are"
