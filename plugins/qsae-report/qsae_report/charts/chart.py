"""What a chart says: its axes and its values. Where things stand on the page is for ``layout``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

LEAST, MOST = 1e-100, 1e100
"""Sizes beyond which numbers are not drawn."""
Format = Literal["number", "percent", "bytes"]
"""How numbers of an axis are written: 20k; 12% of 0.12; 4.2 MB of 4,200,000."""


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        label: what is drawn along it, with its unit.
        log: whether equal steps are equal factors; values that are not positive are then left out, and
            the chart says how many.
        format: how its numbers are written.
        low, high: its ends; None for what the values ask for.
    """

    label: str
    log: bool = False
    format: Format = "number"
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for end in (self.low, self.high):
            if end is not None and not self.holds(end):
                raise ValueError(f"axis {self.label!r} cannot end at {end}")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"axis {self.label!r} goes from {self.low} to {self.high}")

    def holds(self, value: float | None) -> bool:
        """Whether a value has a place: a finite number, no larger than ``MOST``; where equal steps are equal
        factors, above ``LEAST``."""
        return value is not None and abs(value) <= MOST and (value >= LEAST or not self.log)


@dataclass(frozen=True)
class Series:
    """Values along x.

    Attributes:
        name: what the legend says; without a name it has no place there.
        x, y: of equal length; where either is undefined (None, NaN, infinite) the line is interrupted.
        error: of each y, up and down, or None.
        points: whether values have a mark each.
        line: whether they are joined.
        labels: a text beside each value; one without room is shown when it is pointed at.
        look: number of its colour, dash and mark; None for the series' place in the chart.
        legend: whether the legend has it; a name that is left out there is in words and hovers.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    error: Sequence[float | None] | None = None
    points: bool = False
    line: bool = True
    labels: Sequence[str] | None = None
    look: int | None = None
    legend: bool = True

    def __post_init__(self) -> None:
        for what, given in (("y", self.y), ("error", self.error), ("labels", self.labels)):
            if given is not None and len(given) != len(self.x):
                raise ValueError(f"series {self.name!r} has {len(self.x)} x and {len(given)} {what}")


@dataclass(frozen=True)
class Rule:
    """An upright line at a value of x that has a meaning, such as a threshold, with a text at its top."""

    at: float
    text: str


@dataclass(frozen=True)
class Curves:
    """Lines and points over two axes.

    Attributes:
        title: above the chart.
        series: told apart by colour, dash and mark.
        notes: lines below it, such as what was left out.
        rules: those within the range are drawn.
    """

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    notes: Sequence[str] = ()
    rules: Sequence[Rule] = ()


@dataclass(frozen=True)
class Bars:
    """Counts of one group.

    Attributes:
        name: what the legend says.
        edges: n + 1 ascending borders of n bins.
        counts: of each bin.
        look: as that of ``Series``.
    """

    name: str
    edges: Sequence[float]
    counts: Sequence[float | None]
    look: int | None = None

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.counts) + 1 and (self.edges or self.counts):
            raise ValueError(f"{len(self.counts)} bins of {self.name!r} have {len(self.edges)} edges")
        if any(not a < b for a, b in itertools.pairwise(self.edges)):
            raise ValueError(f"edges of {self.name!r} do not ascend")


def looks(drawn: Sequence[Series | Bars]) -> list[int]:
    """The number of the look of each."""
    return [number if one.look is None else one.look for number, one in enumerate(drawn)]


@dataclass(frozen=True)
class Histogram:
    """How often values are in which range: bars of one group; outlines of several, over one another.

    Attributes:
        notes, rules: as those of ``Curves``.
    """

    title: str
    x: Axis
    y: Axis
    groups: Sequence[Bars]
    notes: Sequence[str] = ()
    rules: Sequence[Rule] = ()


Chart = Curves | Histogram
