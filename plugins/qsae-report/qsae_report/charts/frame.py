"""Everything around the values: title, legend, axes with their marks, notes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qsae_report.charts.chart import Axis, Rule
from qsae_report.charts.clip import Box
from qsae_report.charts.legend import Entry, legend
from qsae_report.charts.primitives import FONT_SIZE, Anchor, Line, Polyline, Primitive, Text
from qsae_report.charts.scales import Scale, ends, scale
from qsae_report.charts.text import cut, printable, width, wrapped
from qsae_report.charts.ticks import number_text

PAD = 14.0
TITLE, SMALL = 15.0, 11.0
"""Sizes of the title, and of labels, marks and notes."""
BETWEEN = 10.0
"""Pixels between texts at marks."""
LEAST = 0.5
"""Share of the asked height that is left for values; a picture with a long legend becomes higher."""
RULE_ROW, RULE_DASH = 14.0, (3.0, 3.0)
MOST_X, MOST_Y = 9, 7
"""Marks."""


@dataclass(frozen=True)
class Frame:
    """The laid-out surroundings of values.

    Attributes:
        box: where values are drawn.
        x, y: scales; None where there are no values.
        items: what is drawn.
        height: of the picture.
    """

    box: Box
    x: Scale | None
    y: Scale | None
    items: tuple[Primitive, ...]
    height: float


@dataclass(frozen=True)
class Content:
    """What the surroundings depend on.

    Attributes:
        xs, ys: values that have a place on the axes.
        margin: whether something stays free beside the least and the greatest x.
    """

    title: str
    x: Axis
    y: Axis
    xs: Sequence[float]
    ys: Sequence[float]
    entries: Sequence[Entry]
    notes: Sequence[str]
    margin: bool
    rules: Sequence[Rule] = ()


def frame(content: Content, wide: float, high: float) -> Frame:
    """Lay out what surrounds the values."""
    room = wide - 2 * PAD
    items: list[Primitive] = []
    top = PAD
    if content.title:
        top += TITLE
        items.append(_text(content.title, PAD, top, room, size=TITLE, bold=True))
        top += 8
    drawn, took = legend(content.entries, PAD, top, room)
    items += drawn
    top += took + (6 if took else 0) + SMALL + 2
    items.append(_text(content.y.label, PAD, top, room, size=SMALL, color_soft=True))
    top += 13 + (RULE_ROW if content.rules else 0)
    notes = [line for note in content.notes for line in wrapped(printable(note), SMALL, room)]
    below = 38 + 16 * len(notes) + PAD / 2
    high = max(high, top + LEAST * high + below)
    bottom = high - below
    for number, note in enumerate(notes):
        items.append(Text(PAD, bottom + 54 + 16 * number, note, size=SMALL, color="soft"))
    if not content.xs or not content.ys:
        return _without_values(content, Box(PAD, top, wide - PAD, bottom), items, high)
    return _with_values(content, wide, Box(PAD, top, wide - PAD, bottom), items, high)


def _without_values(content: Content, box: Box, items: list[Primitive], high: float) -> Frame:
    middle = (box.left + box.right) / 2
    items += [
        Line(box.left, box.bottom, box.right, box.bottom, "soft"),
        Text(middle, (box.top + box.bottom) / 2, "no values", "middle", color="soft"),
        _text(
            content.x.label,
            middle,
            box.bottom + 36,
            box.right - box.left,
            size=SMALL,
            color_soft=True,
            anchor="middle",
        ),
    ]
    return Frame(box, None, None, tuple(items), high)


def _with_values(content: Content, wide: float, room: Box, items: list[Primitive], high: float) -> Frame:
    low_y, high_y = ends(content.y, content.ys, MOST_Y, outward=True)
    y = scale(content.y, low_y, high_y, room.bottom, room.top, MOST_Y, _rows_fit)
    left = PAD + max((width(text, SMALL) for text in y.texts), default=0) + 8
    box = Box(left, room.top, wide - PAD - 10, room.bottom)
    low_x, high_x = ends(content.x, content.xs, MOST_X, outward=False, margin=content.margin)

    def fit(at: list[float], texts: list[str]) -> bool:
        spans = [_span(a, text, wide)[:2] for a, text in zip(at, texts, strict=True)]
        return all(b[0] - a[1] >= BETWEEN for a, b in itertools.pairwise(spans))

    x = scale(content.x, low_x, high_x, box.left, box.right, MOST_X, fit)
    if min(content.xs) == max(content.xs):
        x = replace(x, ticks=(content.xs[0],), texts=(number_text(content.xs[0], content.x.format),))
    items += _axes(x, y, box, wide)
    middle = (box.left + box.right) / 2
    items.append(
        _text(
            content.x.label,
            middle,
            box.bottom + 36,
            box.right - box.left,
            size=SMALL,
            color_soft=True,
            anchor="middle",
        )
    )
    items += _rules(content.rules, x, box)
    return Frame(box, x, y, tuple(items), high)


def _rules(rules: Sequence[Rule], x: Scale, box: Box) -> list[Primitive]:
    """Upright lines with their texts above; a text without room beside the last one is left out."""
    items: list[Primitive] = []
    taken = -BETWEEN
    for rule in sorted(rules, key=lambda rule: rule.at):
        if not (x.axis.holds(rule.at) and x.shows(rule.at)):
            continue
        at, text = x.at(rule.at), printable(rule.text)
        items.append(Polyline(((at, box.top - 4), (at, box.bottom)), "soft", 1.0, RULE_DASH))
        half = width(text, SMALL) / 2
        middle = min(max(at, box.left + half), box.right + PAD - half)
        if middle - half >= taken + BETWEEN:
            items.append(Text(middle, box.top - 8, text, "middle", SMALL, color="soft"))
            taken = middle + half
    return items


def _axes(x: Scale, y: Scale, box: Box, wide: float) -> list[Primitive]:
    items: list[Primitive] = []
    for value, text in zip(y.ticks, y.texts, strict=True):
        at = y.at(value)
        strong = value == 0 and at < box.bottom - 0.5
        items.append(Line(box.left, at, box.right, at, "soft" if strong else "grid"))
        items.append(Text(box.left - 8, at + 4, text, "end", SMALL, color="soft"))
    items.append(Line(box.left, box.bottom, box.right, box.bottom, "soft"))
    for value, text in zip(x.ticks, x.texts, strict=True):
        at = x.at(value)
        _, _, place, anchor = _span(at, text, wide)
        items.append(Line(at, box.bottom, at, box.bottom + 4, "soft"))
        items.append(Text(place, box.bottom + 18, text, anchor, SMALL, color="soft"))
    return items


def _span(at: float, text: str, wide: float) -> tuple[float, float, float, Anchor]:
    """Left and right end of a text below a mark, and how it is set: in the middle, or within the picture."""
    half = width(text, SMALL) / 2
    if at + half > wide - 2:
        return wide - 2 - 2 * half, wide - 2, wide - 2, "end"
    return at - half, at + half, at, "middle"


def _rows_fit(at: list[float], texts: list[str]) -> bool:
    return all(abs(a - b) >= SMALL + 4 for a, b in itertools.pairwise(at))


def _text(
    text: str,
    x: float,
    y: float,
    room: float,
    *,
    size: float = FONT_SIZE,
    bold: bool = False,
    color_soft: bool = False,
    anchor: Anchor = "start",
) -> Text:
    whole = printable(text)
    shown = cut(whole, size, room, bold=bold)
    return Text(
        x, y, shown, anchor, size, bold, "soft" if color_soft else "ink", whole if shown != whole else ""
    )
