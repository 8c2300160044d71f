"""What a laid-out chart consists of, in pixels from the top left corner. Nothing else is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qsae_report.charts.palette import Mark, Role

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]
FONT_SIZE = 12.0


@dataclass(frozen=True)
class Line:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float
    color: Role = "grid"
    width: float = 1.0


@dataclass(frozen=True)
class Polyline:
    """Points joined by lines; ``dash`` as in ``palette.DASHES``."""

    points: tuple[Point, ...]
    color: Role
    width: float = 1.75
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Area:
    """A filled outline, which the grid shines through."""

    points: tuple[Point, ...]
    color: Role
    opacity: float


@dataclass(frozen=True)
class Rect:
    """A filled rectangle; ``hover`` is shown when it is pointed at."""

    x: float
    y: float
    width: float
    height: float
    color: Role
    hover: str = ""


@dataclass(frozen=True)
class Circle:
    """The mark of one value, of whatever form, as large as a circle of this radius."""

    x: float
    y: float
    color: Role
    mark: Mark = "circle"
    radius: float = 3.5
    hover: str = ""


@dataclass(frozen=True)
class Text:
    """One line of text; ``y`` is its base line.

    Attributes:
        whole: what was cut to ``text``, if anything was.
    """

    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    size: float = FONT_SIZE
    bold: bool = False
    color: Role = "ink"
    whole: str = ""


Primitive = Line | Polyline | Area | Rect | Circle | Text


@dataclass(frozen=True)
class Picture:
    """A laid-out chart.

    Attributes:
        title: of the chart, whole.
        description: the chart in words.
    """

    width: float
    height: float
    title: str
    description: str
    items: tuple[Primitive, ...]
