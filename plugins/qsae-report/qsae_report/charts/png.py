"""Charts as PNG files: what ``layout`` gives, drawn by matplotlib. No display is needed."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
from typing import TYPE_CHECKING, Literal

from qsae_core.errors import QsaeError
from qsae_core.runs import atomic_file
from qsae_report.charts.chart import Chart
from qsae_report.charts.layout import lay_out
from qsae_report.charts.palette import plain
from qsae_report.charts.primitives import Anchor, Area, Circle, Line, Picture, Polyline, Primitive, Rect, Text
from qsae_report.charts.svg import mark_corners
from qsae_report.charts.text import LOST

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

FONT = "DejaVu Sans"
"""It comes with matplotlib, so that pictures do not hang on a system's fonts."""
POINT = 0.72
"""Points of matplotlib in a pixel: a pixel is a hundredth of an inch there."""
ANCHORS: dict[Anchor, Literal["left", "center", "right"]] = {
    "start": "left",
    "middle": "center",
    "end": "right",
}


def check_png() -> None:
    """Whether PNG files can be drawn.

    Raises:
        QsaeError: if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise QsaeError(
            "drawing PNG files needs matplotlib, which is not installed",
            where="--format png",
            allowed="svg without it",
            next='pip install "qsae-report[png]"',
        )


def png(
    chart: Chart, path: str | pathlib.Path, *, width: float = 640, height: float = 360, scale: float = 2
) -> str:
    """Write a chart as a PNG file, on white.

    Returns:
        Characters that the font of pictures lacks, which U+FFFD stands for.

    Args:
        width, height: as ``svg`` takes them.
        scale: pixels of the file in one of these.

    Raises:
        QsaeError: if matplotlib is not installed.
        UnwritableError: for what the disk refuses.
    """
    check_png()
    picture = lay_out(chart, width, height)
    figure = drawn(picture)
    with atomic_file(pathlib.Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=100 * scale, metadata={"Software": None})
    written = {character for item in picture.items if isinstance(item, Text) for character in item.text}
    return "".join(sorted(character for character in written if not _has(character)))


@functools.cache
def _has(character: str) -> bool:
    from matplotlib.font_manager import findfont, get_font

    return ord(character) in get_font(findfont(FONT)).get_charmap()


def drawn(picture: Picture) -> Figure:
    """A figure whose data coordinates are the picture's pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(picture.width / 100, picture.height / 100), facecolor=plain("ground"))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, picture.width), ylim=(picture.height, 0))
    axes.set_axis_off()
    for number, item in enumerate(picture.items):
        artist = _artist(item)
        artist.set_zorder(number)
        axes.add_artist(artist)
        artist.set_clip_on(False)
    return figure


def _artist(item: Primitive) -> Artist:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle as Disc
    from matplotlib.patches import Polygon, Rectangle
    from matplotlib.text import Text as Written

    color = plain(item.color)
    if isinstance(item, Line):
        return Line2D(
            [item.x1, item.x2],
            [item.y1, item.y2],
            color=color,
            linewidth=item.width * POINT,
            solid_capstyle="butt",
        )
    if isinstance(item, Polyline):
        x, y = zip(*item.points, strict=True)
        dash = (0, tuple(part / item.width for part in item.dash)) if item.dash else None
        return Line2D(
            x,
            y,
            color=color,
            linewidth=item.width * POINT,
            linestyle=dash,
            dash_capstyle="butt",
            solid_joinstyle="round",
        )
    if isinstance(item, Area):
        return Polygon(item.points, closed=True, facecolor=color, alpha=item.opacity, linewidth=0)
    if isinstance(item, Rect):
        return Rectangle((item.x, item.y), item.width, item.height, facecolor=color, linewidth=0)
    if isinstance(item, Circle):
        if item.mark == "circle":
            return Disc((item.x, item.y), item.radius, facecolor=color, linewidth=0)
        corners = mark_corners(item.mark, item.x, item.y, item.radius)
        return Polygon(corners, closed=True, facecolor=color, linewidth=0)
    assert isinstance(item, Text)
    return Written(
        item.x,
        item.y,
        "".join(character if _has(character) else LOST for character in item.text),
        color=color,
        fontsize=item.size * POINT,
        fontweight="bold" if item.bold else "normal",
        fontfamily=FONT,
        horizontalalignment=ANCHORS[item.anchor],
        verticalalignment="baseline",
        parse_math=False,
    )
