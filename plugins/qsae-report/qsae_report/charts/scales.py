"""From values to pixels: the range of an axis, its marks, and where a value stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from qsae_report.charts.chart import Axis
from qsae_report.charts.ticks import linear_ticks, log_ticks, spread, tick_labels, widened

FROM_ZERO = 0.5
"""Values that are not negative and of which the least is below this share of the largest are shown from 0."""
MARGIN = 0.05
"""Share of the range that stays free beside points."""


@dataclass(frozen=True)
class Scale:
    """One direction, laid out.

    Attributes:
        low, high: values at its ends.
        start, end: pixels at its ends.
        ticks, texts: marks, and what stands at them.
    """

    axis: Axis
    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    texts: tuple[str, ...]

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high = self.low, self.high
        if self.axis.log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def shows(self, value: float) -> bool:
        """Whether a value is within the range."""
        slack = 1e-9 * (abs(self.high) + abs(self.low))
        return self.low - slack <= value <= self.high + slack


def ends(
    axis: Axis, values: Iterable[float], most: int, *, outward: bool, margin: bool = False
) -> tuple[float, float]:
    """The range of an axis for these values, which all have a place on it.

    Args:
        most: marks.
        outward: whether ends that the axis does not set are moved to marks.
        margin: whether something stays free beside the values.
    """
    found = list(values)
    fixed = [end for end in (axis.low, axis.high) if end is not None]
    low, high = min(found or fixed or [1.0]), max(found or fixed or [1.0])
    low = low if axis.low is None else axis.low
    high = high if axis.high is None else axis.high
    if low > high:  # all values are beyond the end that the axis has
        low, high = (low, low) if axis.low is not None else (high, high)
    low, high = spread(low, high, log=axis.log)
    if margin:
        low, high = _apart(axis, low, high)
    if not axis.log and 0 < low < FROM_ZERO * high and outward:
        low = 0.0
    if outward:
        low, high = widened(low, high, most, log=axis.log)
    return (low if axis.low is None else axis.low), (high if axis.high is None else axis.high)


def _apart(axis: Axis, low: float, high: float) -> tuple[float, float]:
    if axis.log:
        factor = (high / low) ** MARGIN
        return low / factor, high * factor
    beside = (high - low) * MARGIN
    return low - beside, high + beside


def scale(
    axis: Axis,
    low: float,
    high: float,
    start: float,
    end: float,
    most: int,
    fits: Callable[[list[float], list[str]], bool],
) -> Scale:
    """A scale with as many marks as fit beside one another.

    Args:
        most: marks, at most.
        fits: whether texts at pixels have room.
    """
    bare = Scale(axis, low, high, start, end, (), ())
    for number in range(most, 0, -1):
        ticks = log_ticks(low, high, number) if axis.log else linear_ticks(low, high, number)
        texts = tick_labels(ticks, axis.format, log=axis.log)
        if fits([bare.at(t) for t in ticks], texts):
            break
    return Scale(axis, low, high, start, end, tuple(ticks), tuple(texts))
