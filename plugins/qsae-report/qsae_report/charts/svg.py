"""Charts as SVG text."""

from __future__ import annotations

import html
import math

from qsae_report.charts.chart import Chart
from qsae_report.charts.layout import lay_out
from qsae_report.charts.palette import Mark, Role, plain, themed
from qsae_report.charts.primitives import Area, Circle, Line, Picture, Point, Polyline, Primitive, Rect, Text

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def svg(
    chart: Chart, *, width: float = 640, height: float = 360, themed: bool = False, prefix: str = "c"
) -> str:
    """A chart as an SVG element; the same chart gives the same text.

    Args:
        height: at least.
        themed: for a page: colours are CSS variables (``--chart-1`` to ``--chart-6``, ``--chart-ink``,
            ``--chart-soft``, ``--chart-grid``), and what is drawn lies on the page's own background. Else it
            is a file of its own, on white.
        prefix: of the ids in it; charts of one page need different ones. Letters, digits, - and _.
    """
    return _Drawing(lay_out(chart, width, height), themed, prefix).text()


class _Drawing:
    def __init__(self, picture: Picture, in_page: bool, prefix: str) -> None:
        if not prefix.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"prefix {prefix!r} cannot be part of an id")
        self.picture, self.in_page, self.prefix = picture, in_page, prefix

    def color(self, role: Role) -> str:
        return themed(role) if self.in_page else plain(role)

    def text(self) -> str:
        picture, prefix = self.picture, self.prefix
        wide, high = _number(picture.width), _number(picture.height)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="qsae-chart" role="img" '
            f'viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" font-family="{FONTS}" '
            f'aria-labelledby="{prefix}-title" aria-describedby="{prefix}-desc">'
        )
        said = (
            f'<title id="{prefix}-title">{escaped(picture.title)}</title>',
            f'<desc id="{prefix}-desc">{escaped(picture.description)}</desc>',
        )
        ground = (
            [] if self.in_page else [f'<rect width="{wide}" height="{high}" fill="{self.color("ground")}"/>']
        )
        return "\n".join([head, *said, *ground, *map(self.element, picture.items), "</svg>"]) + "\n"

    def element(self, item: Primitive) -> str:
        color = self.color(item.color)
        if isinstance(item, Line):
            ends = _attributes(x1=item.x1, y1=item.y1, x2=item.x2, y2=item.y2)
            return f'<line {ends} stroke="{color}" stroke-width="{_number(item.width)}"/>'
        if isinstance(item, Polyline):
            return self.polyline(item)
        if isinstance(item, Area):
            corners = _points(item.points)
            return f'<polygon points="{corners}" fill="{color}" fill-opacity="{_number(item.opacity)}"/>'
        if isinstance(item, Rect):
            sides = _attributes(x=item.x, y=item.y, width=item.width, height=item.height)
            return _with_hover("rect", f'{sides} fill="{color}"', item.hover)
        if isinstance(item, Circle):
            return self.mark(item)
        return self.written(item)

    def polyline(self, item: Polyline) -> str:
        dash = f' stroke-dasharray="{" ".join(map(_number, item.dash))}"' if item.dash else ""
        return (
            f'<polyline points="{_points(item.points)}" fill="none" stroke="{self.color(item.color)}" '
            f'stroke-width="{_number(item.width)}" stroke-linejoin="round"{dash}/>'
        )

    def mark(self, item: Circle) -> str:
        fill = f'fill="{self.color(item.color)}"'
        if item.mark == "circle":
            return _with_hover(
                "circle", f"{_attributes(cx=item.x, cy=item.y, r=item.radius)} {fill}", item.hover
            )
        corners = mark_corners(item.mark, item.x, item.y, item.radius)
        return _with_hover("polygon", f'points="{_points(corners)}" {fill}', item.hover)

    def written(self, item: Text) -> str:
        place = _attributes(x=item.x, y=item.y)
        anchor = f' text-anchor="{item.anchor}"' if item.anchor != "start" else ""
        bold = ' font-weight="600"' if item.bold else ""
        style = f'font-size="{_number(item.size)}"{anchor}{bold} fill="{self.color(item.color)}"'
        whole = f"<title>{escaped(item.whole)}</title>" if item.whole else ""
        return f"<text {place} {style}>{whole}{escaped(item.text)}</text>"


def mark_corners(mark: Mark, x: float, y: float, radius: float) -> tuple[Point, ...]:
    """Corners of a mark that covers about what a circle of this radius does."""
    if mark == "square":
        half = radius * 0.89
        return ((x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half))
    if mark == "diamond":
        far = radius * 1.25
        return ((x, y - far), (x + far, y), (x, y + far), (x - far, y))
    far = radius * 1.35
    wide, low = far * math.sqrt(3) / 2, far / 2
    return ((x, y - far), (x + wide, y + low), (x - wide, y + low))


def escaped(text: str) -> str:
    """Text as XML has it, in an element or an attribute."""
    return html.escape(text, quote=True)


def _with_hover(name: str, attributes: str, hover: str) -> str:
    return (
        f"<{name} {attributes}><title>{escaped(hover)}</title></{name}>"
        if hover
        else f"<{name} {attributes}/>"
    )


def _attributes(**values: float) -> str:
    return " ".join(f'{name}="{_number(value)}"' for name, value in values.items())


def _points(points: tuple[Point, ...]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    """To a hundredth of a pixel."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
