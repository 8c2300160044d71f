"""Colours can be seen, and told apart, by those who see fewer of them as well."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from qsae_report.charts import variables
from qsae_report.charts.palette import DARK, DASHES, LIGHT, MARKS, ON_DARK, ON_LIGHT, contrast, luminance

FULL = np.eye(3)
DEUTERANOPE = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
PROTANOPE = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
"""Of linear RGB; Machado, Oliveira and Fernandes (2009), severity 1."""
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
APART = 15
"""In CIE Lab; 2.3 is the least difference that is noticed."""
palettes = pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])


def lab(color, vision):
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = XYZ @ np.clip(vision @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    fx, fy, fz = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def test_contrast_as_wcag_defines_it():
    assert luminance("#ffffff") == pytest.approx(1)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # the grey that WCAG's pages name
    assert contrast("#ffffff", "#767676") == contrast("#767676", "#ffffff")


def test_lines_can_be_seen_where_they_are_drawn():
    for color in LIGHT:
        assert contrast(color, ON_LIGHT["ground"]) >= 3
        assert contrast(color, ON_DARK["ground"]) >= 3  # a dark page that sets no variables
    for color in DARK:
        assert contrast(color, ON_DARK["ground"]) >= 3


@pytest.mark.parametrize("theme", [ON_LIGHT, ON_DARK], ids=["light", "dark"])
def test_text_can_be_read(theme):
    assert contrast(theme["ink"], theme["ground"]) >= 7
    assert contrast(theme["soft"], theme["ground"]) >= 4.5


@palettes
@pytest.mark.parametrize("vision", [FULL, DEUTERANOPE, PROTANOPE], ids=["full", "deuteranope", "protanope"])
def test_any_two_colors_are_told_apart(colors, vision):
    for one, other in itertools.combinations(colors, 2):
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) >= APART, (one, other)


def test_the_simulation_knows_a_pair_that_deuteranopes_confuse():
    green, red = "#5e8a00", "#b06a00"
    assert np.linalg.norm(lab(green, FULL) - lab(red, FULL)) > 2 * APART
    assert np.linalg.norm(lab(green, DEUTERANOPE) - lab(red, DEUTERANOPE)) < APART


def test_without_color_dashes_and_marks_differ():
    looks = {(DASHES[i % len(DASHES)], MARKS[i % len(MARKS)]) for i in range(20)}
    assert len(looks) == 20


def test_a_page_gets_every_variable_in_both_themes():
    assert variables("light").keys() == variables("dark").keys()
    assert variables("dark")["--chart-1"] == DARK[0]
    assert variables("light")["--chart-soft"] == ON_LIGHT["soft"]
