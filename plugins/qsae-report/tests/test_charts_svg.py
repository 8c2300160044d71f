"""Charts as SVG: well-formed, safe, the same each time, in words, and in a page's colours."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qsae_report.charts import Axis, Bars, Curves, Histogram, Rule, Series, svg, variables
from qsae_report.charts.palette import LIGHT, ON_LIGHT

SVG = "{http://www.w3.org/2000/svg}"
CURVES = Curves(
    "Loss",
    Axis("step"),
    Axis("loss", log=True),
    [
        Series("one", [5, 10, 15], [200.0, 20.0, 2.0]),
        Series("two", [5, 10], [100.0, None], [1.0, None], points=True, labels=["here", ""]),
    ],
)
BARS = Histogram(
    "Density", Axis("p", log=True, format="percent"), Axis("latents"), [Bars("", [0.001, 0.01, 0.1], [3, 5])],
    rules=[Rule(0.05, "dense")],
)  # fmt: skip


def parsed(text):
    return ET.fromstring(text)


@pytest.mark.parametrize("themed", [False, True])
@pytest.mark.parametrize("chart", [CURVES, BARS])
def test_an_image_with_a_title_and_a_description(chart, themed):
    root = parsed(svg(chart, themed=themed, prefix="x-1"))
    assert root.tag == f"{SVG}svg"
    assert (root.get("role"), root.get("viewBox")) == ("img", "0 0 640 360")
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert (root.get("aria-labelledby"), root.get("aria-describedby")) == (title.get("id"), desc.get("id"))
    assert (title.get("id"), desc.get("id"), title.text) == ("x-1-title", "x-1-desc", chart.title)


def test_what_the_chart_says_is_said_in_words():
    said = parsed(svg(CURVES)).find(f"{SVG}desc").text
    assert said == (
        "Line chart. Across: step. Upward: loss, logarithmic. one: 3 values, from 200 at 5 to 2 at 15; "
        "least 2, greatest 200. two: one value, 100 at 5."
    )
    said = parsed(svg(BARS)).find(f"{SVG}desc").text
    assert said == (
        "Histogram. Across: p, logarithmic. Upward: latents. One group: values from 0.1% to 10%; most, 5, "
        "from 1% to 10%. dense: at 5%."
    )


def test_the_same_chart_gives_the_same_text():
    assert svg(CURVES) == svg(CURVES)
    assert svg(CURVES, prefix="a") != svg(CURVES, prefix="b")


def test_ids_have_the_prefix_so_that_charts_of_one_page_do_not_meet():
    assert set(re.findall(r' id="([^"]*)"', svg(CURVES, prefix="loss"))) == {"loss-title", "loss-desc"}
    with pytest.raises(ValueError, match="cannot be part of an id"):
        svg(CURVES, prefix='"><script>')


def colors(text):
    return set(re.findall(r'(?:fill|stroke)="([^"]*)"', text)) - {"none"}


def test_a_file_of_its_own_is_on_white_and_refers_to_nothing():
    text = svg(CURVES)
    assert colors(text) == {
        LIGHT[0],
        LIGHT[1],
        *(ON_LIGHT[role] for role in ("ink", "soft", "grid", "ground")),
    }
    assert "var(" not in text
    assert not re.search(r"href|url\(|<style|<script", text)
    assert parsed(text).find(f"{SVG}rect").get("width") == "640"


def test_in_a_page_every_color_is_a_variable_with_something_in_its_place():
    text = svg(CURVES, themed=True)
    assert all(re.fullmatch(r"var\((--chart-\w+), [^,]+\)", color) for color in colors(text))
    named = set(re.findall(r"--chart-\w+", text))
    assert {"--chart-1", "--chart-2", "--chart-ink", "--chart-soft", "--chart-grid"} == named
    assert named <= variables("dark").keys()
    assert f"var(--chart-1, {LIGHT[0]})" in text
    assert not parsed(text).findall(f"{SVG}rect")


HOSTILE = [
    "</title><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "&amp;&#0;",
    "]]>",
    "$x^2$",
    "\x00\x1b\ud800\ufffe",
    "\u202eevil",
    "日本語 🙂 é",
]


ATTRIBUTES = [
    "class",
    "role",
    "viewBox",
    "width",
    "height",
    "font-family",
    "aria-labelledby",
    "aria-describedby",
    "id",
    "x",
    "y",
    "x1",
    "y1",
    "x2",
    "y2",
    "cx",
    "cy",
    "r",
    "points",
    "fill",
    "fill-opacity",
    "stroke",
    "stroke-width",
    "stroke-linejoin",
    "stroke-dasharray",
    "font-size",
    "font-weight",
    "text-anchor",
]


@pytest.mark.parametrize("themed", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_and_nothing_else(name, themed):
    series = [Series(name, [1, 2], [1, 2], points=True, labels=[name, name]), Series(name * 9, [1], [2])]
    chart = Curves(name, Axis(name), Axis(name), series, [name], [Rule(1.5, name)])
    group = Histogram(name, Axis(name), Axis(name), [Bars(name, [0, 1], [1])], [name])
    for made in (chart, group):
        root = parsed(svg(made, themed=themed))
        kinds = {element.tag.removeprefix(SVG) for element in root.iter()}
        assert kinds <= {"svg", "title", "desc", "rect", "line", "polyline", "polygon", "circle", "text"}
        assert {key for element in root.iter() for key in element.attrib} <= set(ATTRIBUTES)
        lost = {code: "\ufffd" for code in (0, 0x1B, 0xD800, 0xFFFE, 0x202E)}
        assert root.find(f"{SVG}title").text == name.translate(lost)
        assert name.translate(lost) in [text.text for text in root.iter(f"{SVG}text")]


@settings(max_examples=60)
@given(
    st.text(max_size=40),
    st.lists(st.tuples(st.floats(), st.one_of(st.none(), st.floats()), st.one_of(st.none(), st.floats()))),
    st.booleans(),
    st.booleans(),
)
def test_whatever_the_values_the_text_is_well_formed_and_every_number_in_it_finite(name, values, log, points):
    x, y, error = ([value[i] for value in values] for i in range(3))
    series = Series(name, x, y, error, points=points, labels=[name] * len(x))
    for axis in (Axis("x", log=log), Axis("x", format="bytes", high=10.0)):
        root = parsed(svg(Curves(name, axis, Axis("y", log=log), [series])))
        for element in root.iter():
            for key in ("x", "y", "x1", "y1", "cx", "cy", "width", "height", "points"):
                for number in re.split("[ ,]+", element.get(key, "0")):
                    assert math.isfinite(float(number))


def test_a_mark_and_a_bar_tell_their_numbers_when_pointed_at():
    root = parsed(svg(CURVES))
    hovers = [t.text for t in root.iter(f"{SVG}title")]
    assert "two; here; step 5; loss 100 ± 1" in hovers
    assert "1% to 10%: 5" in [t.text for t in parsed(svg(BARS)).iter(f"{SVG}title")]
