"""Where things stand in a chart, in pixels."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qsae_report.charts import Axis, Bars, Curves, Histogram, Rule, Series
from qsae_report.charts.clip import Box, clipped, thinned
from qsae_report.charts.layout import lay_out
from qsae_report.charts.primitives import Area, Circle, Line, Polyline, Rect, Text
from qsae_report.charts.text import cut, printable, width, wrapped

STEP = Axis("step")


def of(picture, kind, **wanted):
    return [
        item
        for item in picture.items
        if isinstance(item, kind) and all(getattr(item, name) == value for name, value in wanted.items())
    ]


def chart(*series, x=STEP, y=None, **more):
    return Curves("A chart", x, y or Axis("FVU"), series, **more)


def position(picture, text):
    """Of the middle of a text at a mark."""
    (found,) = of(picture, Text, text=text)
    return found.x, found.y


def test_values_stand_where_their_marks_are():
    picture = lay_out(chart(Series("", [0, 50, 100], [0.0, 0.5, 1.0])), 640, 360)
    (line,) = of(picture, Polyline)
    (x0, y0), (x1, y1), (x2, y2) = line.points
    assert (x1, y1) == (pytest.approx((x0 + x2) / 2), pytest.approx((y0 + y2) / 2))
    grid = {round(item.y1, 6) for item in of(picture, Line)}
    assert {round(y0, 6), round(y2, 6)} <= grid  # of 0 and 1
    assert position(picture, "0.4")[1] - 4 == pytest.approx(y0 + 0.4 * (y2 - y0))
    assert position(picture, "40")[0] == pytest.approx(x0 + 0.4 * (x2 - x0))


def test_equal_factors_are_equal_steps_on_a_logarithmic_axis():
    picture = lay_out(chart(Series("", [1, 2, 3], [1.0, 10.0, 100.0]), y=Axis("loss", log=True)), 640, 360)
    (line,) = of(picture, Polyline)
    first, second, third = (y for _, y in line.points)
    assert first - second == pytest.approx(second - third)


def test_an_undefined_value_interrupts_the_line_and_a_lonely_one_has_a_mark():
    y = [1.0, 2.0, None, 4.0, math.nan, 3.0, math.inf, 1.0, 1.0]
    picture = lay_out(chart(Series("", list(range(9)), y)), 640, 360)
    assert [len(line.points) for line in of(picture, Polyline)] == [2, 2]
    assert len(of(picture, Circle)) == 2  # of 4 and of 3


@pytest.mark.parametrize(
    "empty",
    [
        chart(Series("", [], [])),
        chart(Series("", [1, 2], [None, math.nan])),
        chart(Series("", [1, 2], [0.0, -1.0]), y=Axis("loss", log=True)),
        chart(Series("", [math.nan], [1.0])),
        Histogram("h", STEP, Axis("n"), [Bars("", [], [])]),
        Histogram("h", STEP, Axis("n"), [Bars("", [0, 1], [None])]),
    ],
)
def test_without_values_a_chart_says_so(empty):
    picture = lay_out(empty, 640, 360)
    assert len(of(picture, Text, text="no values")) == 1
    assert not [item for kind in (Polyline, Circle, Rect, Area) for item in of(picture, kind)]
    assert "no values" in picture.description


def test_a_chart_of_nothing_is_one():
    assert of(lay_out(chart(), 640, 360), Text, text="no values")
    assert of(lay_out(Histogram("h", STEP, Axis("n"), []), 640, 360), Text, text="no values")


def test_one_value_is_a_mark_in_the_middle_with_its_x_below():
    picture = lay_out(chart(Series("", [100], [0.5])), 640, 360)
    (mark,) = of(picture, Circle)
    assert position(picture, "100")[0] == pytest.approx(mark.x)
    assert position(picture, "0.50")[1] - 4 == pytest.approx(mark.y)


def test_a_constant_is_a_level_line_within_the_chart():
    picture = lay_out(chart(Series("", [1, 2, 3], [32.0] * 3)), 640, 360)
    (line,) = of(picture, Polyline)
    assert len({y for _, y in line.points}) == 1
    assert position(picture, "32")[1] - 4 == pytest.approx(line.points[0][1])


def test_error_bars_reach_from_the_value_up_and_down():
    series = Series("", [1, 2], [10.0, 20.0], [5.0, None], points=True)
    picture = lay_out(chart(series), 640, 360)
    mark = of(picture, Circle)[0]
    (bar,) = [line for line in of(picture, Line, color=0) if line.x1 == line.x2]
    caps = [line for line in of(picture, Line, color=0) if line.y1 == line.y2]
    assert bar.x1 == mark.x
    assert bar.y1 - mark.y == pytest.approx(mark.y - bar.y2)
    assert [cap.y1 for cap in caps] == [bar.y1, bar.y2]


def test_an_error_bar_below_zero_ends_at_the_bottom_of_a_logarithmic_axis():
    series = Series("", [1, 2], [2.0, 100.0], [7.0, None], points=True)
    picture = lay_out(chart(series, y=Axis("y", log=True)), 640, 360)
    (bar,) = [line for line in of(picture, Line, color=0) if line.x1 == line.x2]
    caps = [line for line in of(picture, Line, color=0) if line.y1 == line.y2]
    assert bar.y1 == max(line.y1 for line in of(picture, Line, color="soft") if line.y1 == line.y2)
    assert [cap.y1 for cap in caps] == [bar.y2]


def test_what_has_no_place_is_counted_below_the_chart():
    series = Series("", [1, 2, 3, 4], [0.0, 1.0, -2.0, 10.0])
    picture = lay_out(chart(series, y=Axis("y", log=True)), 640, 360)
    assert of(picture, Text, text="2 values are not positive, and not shown on a logarithmic axis.")
    picture = lay_out(chart(series, y=Axis("y", high=4.0)), 640, 360)
    assert of(picture, Text, text="1 value is beyond the axes.")
    top = min(line.y1 for line in of(picture, Line, color="grid"))
    assert min(y for line in of(picture, Polyline) for _, y in line.points) == pytest.approx(top)


def test_series_have_colors_dashes_and_marks_of_their_own():
    many = [Series(f"s{i}", [1, 2, 3], [i, i + 1, i], points=True) for i in range(12)]
    picture = lay_out(chart(*many), 640, 360)
    lines = [line for line in of(picture, Polyline) if len(line.points) == 3]
    assert len({(line.color % 6, line.dash) for line in lines}) == 12
    own = {(c.color % 6, c.mark) for c in of(picture, Circle)}
    assert len(own) == 12


def test_a_bar_is_as_high_as_its_count():
    bars = Bars("", [0, 1, 2, 4, 5], [1, 4, 2, 0])
    picture = lay_out(Histogram("h", STEP, Axis("n"), [bars]), 640, 360)
    one, four, two = of(picture, Rect)  # a count of 0 has no bar
    assert (four.height, two.height) == (pytest.approx(4 * one.height), pytest.approx(2 * one.height))
    assert two.width + 1 == pytest.approx(2 * (one.width + 1))  # a pixel is between bars
    assert one.hover == "0 to 1: 1"


def test_several_groups_are_outlines_over_one_another_with_gaps_where_bins_are_missing():
    groups = [Bars("a", [0, 1, 2, 3], [1, None, 2]), Bars("b", [0, 2], [3])]
    picture = lay_out(Histogram("h", STEP, Axis("n"), groups), 640, 360)
    assert [len(area.points) for area in of(picture, Area)] == [4, 4, 4]
    assert [area.color for area in of(picture, Area)] == [0, 0, 1]
    assert len({line.dash for line in of(picture, Polyline)}) == 2


def test_a_rule_stands_at_its_value_with_its_text_above():
    bars = Bars("", [0, 1, 2], [1, 2])
    rules = [Rule(1, "half"), Rule(7, "outside")]
    picture = lay_out(Histogram("h", STEP, Axis("n"), [bars], rules=rules), 640, 360)
    (rule,) = of(picture, Polyline)
    first, second = of(picture, Rect)
    assert rule.points[0][0] == rule.points[1][0] == pytest.approx((first.x + first.width + second.x) / 2)
    assert position(picture, "half")[0] == pytest.approx(rule.points[0][0])
    assert not of(picture, Text, text="outside")
    assert "half: at 1." in picture.description


def test_a_label_avoids_its_line_and_is_left_out_where_there_is_no_room():
    up = Series("", [0, 10], [0.0, 10.0], points=True, labels=["", ""])
    beside = Series("", [5], [5.2], points=True, line=False, labels=["a label"])
    picture = lay_out(chart(up, beside), 640, 360)
    (label,) = of(picture, Text, text="a label")
    (line,) = of(picture, Polyline)
    (x0, y0), (x1, y1) = line.points
    right = label.x + width("a label", label.size) if label.anchor == "start" else label.x
    left = right - width("a label", label.size)
    for x in (left, right):
        on_line = y0 + (x - x0) * (y1 - y0) / (x1 - x0)
        assert label.y < on_line or label.y - label.size > on_line
    crowd = [5 + n / 100 for n in range(-60, 60)]
    many = Series("", crowd, [5.2] * 120, points=True, line=False, labels=["a label"] * 120)
    assert 1 <= len(of(lay_out(chart(up, many), 640, 360), Text, text="a label")) < 20


@pytest.mark.parametrize("wide", [200, 300, 640])
def test_there_are_as_many_marks_as_have_room(wide):
    steps = [1_000_000.25 + n / 4 for n in range(9)]  # marks of eleven characters
    picture = lay_out(chart(Series("", steps, [1.0] * 9)), wide, 360)
    (axis,) = {line.y1 for line in of(picture, Line, color="soft") if line.y1 == line.y2}
    marks = [box for box in boxes(picture) if axis < box[2] < axis + 20]
    assert len(marks) == len([line for line in of(picture, Line) if line.x1 == line.x2])
    assert len(marks) >= wide // 130
    assert all(one[3] + 9 < other[1] for one, other in itertools.pairwise(marks))
    assert marks[-1][3] <= wide


def test_a_long_text_at_the_last_mark_ends_within_the_picture():
    picture = lay_out(chart(Series("", [1_000_000, 1_000_010], [1.0, 1.0])), 640, 360)
    (last,) = of(picture, Text, text="1,000,010")
    assert (last.anchor, last.x) == ("end", 638)
    assert width(last.text, last.size) / 2 > 640 - max(
        x for line in of(picture, Polyline) for x, _ in line.points
    )


def boxes(picture):
    found = []
    for item in of(picture, Text):
        wide = width(item.text, item.size, bold=item.bold)
        left = item.x - {"start": 0, "middle": wide / 2, "end": wide}[item.anchor]
        found.append((item.text, left, item.y - 0.75 * item.size, left + wide, item.y + 0.2 * item.size))
    return found


names = st.text(st.characters(codec="utf-8"), max_size=90)
numbers = st.one_of(st.none(), st.floats(-1e9, 1e9), st.floats(1e-9, 1))


@settings(max_examples=150)
@given(
    st.lists(st.tuples(names, st.lists(numbers, min_size=1, max_size=6)), min_size=1, max_size=7),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["number", "percent", "bytes"]),
    st.sampled_from([(640, 360), (420, 240), (1000, 500)]),
)
def test_texts_do_not_meet_and_stay_within_the_picture(given_series, log_x, log_y, form, size):
    series = [
        Series(
            name,
            list(range(len(ys))),
            ys,
            points=i % 2 == 0,
            labels=[f"{name[:12]}{n}" for n in range(len(ys))],
        )
        for i, (name, ys) in enumerate(given_series)
    ]
    made = Curves("A title", Axis("step", log=log_x), Axis("value", log=log_y, format=form), series)
    picture = lay_out(made, *size)
    texts = boxes(picture)
    for text, left, top, right, bottom in texts:
        assert left + 1 >= 0, text
        assert right <= size[0] + 1, text
        assert top >= 0, text
        assert bottom <= picture.height, text
    for one, other in itertools.combinations([box for box in texts if box[0]], 2):
        apart = one[3] <= other[1] or other[3] <= one[1] or one[4] <= other[2] or other[4] <= one[2]
        assert apart, (one, other)


def test_the_legend_wraps_and_makes_the_picture_higher():
    long = [Series(f"a run with quite a long name, number {i}", [1, 2], [i, i]) for i in range(30)]
    picture = lay_out(chart(*long), 640, 360)
    assert picture.height > 360
    assert len({item.y for item in of(picture, Text, size=12.0)}) >= 15
    box = of(picture, Line, color="soft")
    grid = of(picture, Line, color="grid")
    assert max(line.y1 for line in box) - min(line.y1 for line in grid) >= 0.45 * 360


def test_a_long_name_is_cut_in_its_middle_and_whole_in_its_hover():
    name = "results/" + "x" * 200 + "/seed-7"
    picture = lay_out(chart(Series(name, [1, 2], [1, 2]), Series("b", [1], [1])), 640, 360)
    (found,) = of(picture, Text, whole=name)
    assert found.text.startswith("results/xx")
    assert found.text.endswith("/seed-7")
    assert "…" in found.text


def test_three_names_in_a_narrow_chart_are_whole():
    """As in a page, where a compared run's name is the last three parts of its path."""
    names = ["this coder", "float twin", "matryoshka-quantized-smollm2-135m-seed-1/2/30000"]
    bars = [Bars(name, [0, 1], [1]) for name in names]
    picture = lay_out(Histogram("Activations", Axis("x"), Axis("y"), bars), 340, 250)
    legend = of(picture, Text, size=12.0)
    assert [item.text for item in legend[:2]] == names[:2]
    assert "".join(item.text for item in legend[2:]) == names[2]
    assert len({item.y for item in legend}) == 3
    assert all(item.x + width(item.text, 12.0) <= 340 for item in legend)
    label = next(item for item in of(picture, Text, size=11.0) if item.text == "y")
    assert label.y - 11 > max(item.y for item in legend)


def test_without_names_there_is_no_legend():
    named = lay_out(chart(Series("a", [1, 2], [1, 2])), 640, 360)
    bare = lay_out(chart(Series("", [1, 2], [1, 2])), 640, 360)
    assert len(of(named, Polyline)) == 2
    assert len(of(bare, Polyline)) == 1


def test_a_line_leaves_the_box_where_it_crosses_its_border():
    box = Box(0, 0, 10, 10)
    assert clipped([(-5, 5), (5, 5)], box) == [[(0, 5), (5, 5)]]
    assert clipped([(5, 5), (5, 20), (6, 20), (6, 5)], box) == [[(5, 5), (5, 10)], [(6, 10), (6, 5)]]
    assert clipped([(-5, -5), (-5, 20)], box) == []
    assert clipped([(1, 1), (2, 2), (3, 1)], box) == [[(1, 1), (2, 2), (3, 1)]]
    assert clipped([(3, 3)], box) == [[(3, 3)]]


def test_many_points_keep_what_can_be_seen_of_them():
    points = [(i / 100, math.sin(i) * i) for i in range(10_000)]
    kept = thinned(points, 500)
    assert len(kept) <= 4 * 100
    assert kept == [point for point in points if point in set(kept)]  # in their order
    for column in range(100):
        mine = [p for p in points if int(p[0]) == column]
        assert {min(mine, key=lambda p: p[1]), max(mine, key=lambda p: p[1])} <= set(kept)
    assert thinned(points, 20_000) == points


def test_texts_are_cut_wrapped_and_made_printable():
    assert cut("short", 12, 100) == "short"
    assert cut("x" * 100, 12, 0.5) == "…"
    shown = cut("beginning of a long name and its end", 12, 150)
    assert width(shown, 12) <= 150
    assert shown.startswith("beginning")
    assert shown.endswith("end")
    lines = wrapped("one two three four", 12, width("one two", 12))
    assert lines == ["one two", "three", "four"]
    assert printable("a\x00b\n\tc\ud800 \u202ed\uffff") == "a\ufffdb c\ufffd \ufffdd\ufffd"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Series("a", [1, 2], [1]), "2 x and 1 y"),
        (lambda: Series("a", [1], [1], error=[]), "1 x and 0 error"),
        (lambda: Bars("a", [1, 2], [1, 2]), "2 bins of 'a' have 2 edges"),
        (lambda: Bars("a", [1, 1], [1]), "do not ascend"),
        (lambda: Axis("a", log=True, low=0), "cannot end at 0"),
        (lambda: Axis("a", low=2, high=1), "goes from 2 to 1"),
    ],
)
def test_a_chart_that_makes_no_sense_cannot_be_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()
