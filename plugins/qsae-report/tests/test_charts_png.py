"""Charts as PNG: what is drawn is what is laid out, and so what SVG has."""

from __future__ import annotations

import importlib.util
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from qsae_report.charts import Axis, Bars, Curves, Histogram, Series, png, svg
from qsae_report.charts.layout import lay_out

from qsae_core.errors import QsaeError, UnwritableError

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed"
)
CURVES = Curves(
    "Loss of $x^2$",
    Axis("step"),
    Axis("loss"),
    [Series("one", [0, 50, 100], [0.0, 1.0, 0.25]), Series("two", [0, 100], [1.0, 0.5], points=True)],
)
BARS = Histogram("h", Axis("p"), Axis("n"), [Bars("", [0, 1, 2], [3, 5])])


def pixels(path):
    from matplotlib.image import imread

    return imread(path)


def rgb(color):
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255


@needs_matplotlib
def test_the_file_has_the_size_that_was_asked_for(tmp_path):
    png(CURVES, tmp_path / "deep" / "a.png", width=400, height=300, scale=2)
    assert pixels(tmp_path / "deep" / "a.png").shape[:2] == (600, 800)


@needs_matplotlib
def test_the_same_chart_gives_the_same_bytes(tmp_path):
    png(CURVES, tmp_path / "a.png")
    png(CURVES, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@needs_matplotlib
def test_bars_are_where_svg_has_them(tmp_path):
    png(BARS, tmp_path / "a.png", scale=1)
    image = pixels(tmp_path / "a.png")[:, :, :3]
    blue = np.abs(image - rgb("#1456fd")).max(axis=2) < 0.02
    root = ET.fromstring(svg(BARS))
    bars = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("fill") == "#1456fd"]
    assert len(bars) == 2
    expected = np.zeros_like(blue)
    for bar in bars:
        x, y, wide, high = (float(bar.get(key)) for key in ("x", "y", "width", "height"))
        inner = blue[int(y + 2) : int(y + high - 2), int(x + 2) : int(x + wide - 2)]
        assert inner.all()
        expected[int(y - 1) : int(y + high + 2), int(x - 1) : int(x + wide + 2)] = True
    assert not (blue & ~expected).any()


@needs_matplotlib
def test_every_primitive_becomes_one_artist_at_its_place():
    from qsae_report.charts.png import drawn

    picture = lay_out(CURVES, 640, 360)
    figure = drawn(picture)
    (axes,) = figure.axes
    texts = {(t.get_text(), *t.get_position()) for t in axes.texts}
    assert {(item.text, item.x, item.y) for item in picture.items if hasattr(item, "text")} == texts
    lines = [item.points for item in picture.items if hasattr(item, "dash")]
    drawn_lines = [tuple(map(tuple, line.get_xydata())) for line in axes.lines]
    assert all(tuple(map(tuple, points)) in drawn_lines for points in lines)
    artists = [*axes.lines, *axes.texts, *(patch for patch in axes.patches if patch is not axes.patch)]
    assert len(artists) == len(picture.items)
    corner = axes.transData.transform((picture.width, 0))
    assert corner == pytest.approx(figure.bbox.max)


@needs_matplotlib
def test_dollars_are_no_formulas(tmp_path):
    title = Curves("$\\frac{$", Axis("$_{$"), Axis("y"), [Series("a$b$", [1], [1])])
    png(title, tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").size


@needs_matplotlib
def test_characters_that_the_font_lacks_are_told(tmp_path, recwarn):
    chart = Curves("Größe", Axis("日本 x"), Axis("y"), [Series("🙂 日", [1], [1])])
    assert png(chart, tmp_path / "a.png") == "日本🙂"
    assert png(BARS, tmp_path / "b.png") == ""
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


@needs_matplotlib
def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnwritableError):
        png(BARS, tmp_path / "file" / "a.png")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(QsaeError, match="matplotlib") as caught:
        png(BARS, tmp_path / "a.png")
    assert caught.value.next == 'pip install "qsae-report[png]"'
    assert not list(tmp_path.iterdir())


def test_svg_needs_no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert svg(BARS).startswith("<svg")
