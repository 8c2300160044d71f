"""Marks of axes, and numbers as they are written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qsae_report.charts.ticks import linear_ticks, log_ticks, number_text, spread, tick_labels, widened


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks", "labels"),
    [
        (0, 1, 6, [0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (5, 1000, 6, [200, 400, 600, 800, 1000], ["200", "400", "600", "800", "1,000"]),
        (0, 20_000, 6, [0, 5000, 10_000, 15_000, 20_000], ["0", "5k", "10k", "15k", "20k"]),
        (0, 2_400_000, 6, [0, 5e5, 1e6, 1.5e6, 2e6], ["0", "0.5M", "1.0M", "1.5M", "2.0M"]),
        (
            -0.3,
            0.3,
            7,
            [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3],
            ["-0.3", "-0.2", "-0.1", "0", "0.1", "0.2", "0.3"],
        ),
        (0.07, 0.1, 5, [0.07, 0.08, 0.09, 0.1], ["0.07", "0.08", "0.09", "0.10"]),
        (
            0,
            0.0005,
            6,
            [0, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4],
            ["0", "0.0001", "0.0002", "0.0003", "0.0004", "0.0005"],
        ),
        (0, 5e-5, 6, [0, 1e-5, 2e-5, 3e-5, 4e-5, 5e-5], ["0", "1e-5", "2e-5", "3e-5", "4e-5", "5e-5"]),
        (1_200_000, 1_200_010, 3, [1.2e6, 1_200_005, 1_200_010], ["1,200,000", "1,200,005", "1,200,010"]),
        (1.0000001, 1.0000003, 3, [1.0000001, 1.0000002, 1.0000003], ["1.0000001", "1.0000002", "1.0000003"]),
    ],
)
def test_linear_marks_are_round_and_written_alike(low, high, most, ticks, labels):
    assert linear_ticks(low, high, most) == pytest.approx(ticks, rel=1e-12)
    assert tick_labels(linear_ticks(low, high, most), "number") == labels


def test_percent_and_bytes():
    assert tick_labels([0, 0.05, 0.1], "percent") == ["0%", "5%", "10%"]
    assert tick_labels([0, 0.025, 0.05], "percent") == ["0%", "2.5%", "5.0%"]
    assert tick_labels([0, 500_000, 1_000_000], "bytes") == ["0", "0.5 MB", "1.0 MB"]
    assert tick_labels([0, 200, 400], "bytes") == ["0", "200 B", "400 B"]


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (1, 1000, 6, [1, 10, 100, 1000]),
        (5, 500, 7, [5, 10, 20, 50, 100, 200, 500]),
        (1e-9, 1, 4, [1e-9, 1e-6, 1e-3, 1]),  # every third power of ten
        (0.3, 0.9, 6, [0.4, 0.6, 0.8]),  # .5 alone is no scale; of .1 there are seven, so it is .2
    ],
)
def test_logarithmic_marks(low, high, most, ticks):
    assert log_ticks(low, high, most) == pytest.approx(ticks)


def test_labels_of_a_logarithmic_axis_are_as_short_as_they_can_be():
    assert tick_labels([1e-5, 1e-3, 0.1, 10, 1000, 1e5], "number", log=True) == [
        "1e-5", "0.001", "0.1", "10", "1,000", "100k",
    ]  # fmt: skip
    assert tick_labels([1e-5, 0.01, 1], "percent", log=True) == ["0.001%", "1%", "100%"]
    assert tick_labels([5e5, 1e6, 2e9], "bytes", log=True) == ["500 kB", "1 MB", "2 GB"]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.07687, "number", "0.0769"),
        (-3.0, "number", "-3"),
        (8192.0, "number", "8,192"),
        (12_345, "number", "12.3k"),
        (3e20, "number", "3e8T"),
        (2.5e-5, "number", "2.5e-5"),
        (0.0, "percent", "0%"),
        (0.125, "percent", "12.5%"),
        (4_213_385, "bytes", "4.21 MB"),
        (999, "bytes", "999 B"),
    ],
)
def test_a_number_on_its_own(value, kind, text):
    assert number_text(value, kind) == text


def test_a_range_of_one_value_has_some_around_it():
    assert spread(32, 32, log=False) == pytest.approx((28.8, 35.2))
    assert spread(0, 0, log=False) == (0, 1)
    assert spread(8, 8, log=True) == (4, 16)
    assert spread(1, 2, log=False) == (1, 2)


def test_ends_move_outward_to_marks():
    assert widened(0.07, 0.85, 6, log=False) == (0, 1)  # steps of .2 and 6 marks
    assert widened(3, 70, 6, log=True) == (2, 100)
    assert widened(2, 100, 6, log=True) == (2, 100)


finite = st.floats(-1e12, 1e12, allow_nan=False)


@given(finite, finite, st.integers(2, 10))
def test_marks_are_within_the_range_few_ascending_and_told_apart(a, b, most):
    low, high = spread(min(a, b), max(a, b), log=False)
    ticks = linear_ticks(low, high, most)
    slack = 1e-6 * (high - low)
    assert len(ticks) <= most
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    assert ticks == sorted(set(ticks))
    labels = tick_labels(ticks, "number")
    assert len(set(labels)) == len(labels)


@given(st.floats(-9, 9), st.floats(0.01, 9), st.integers(2, 10))
def test_logarithmic_marks_are_within_the_range_and_few(exponent, decades, most):
    low, high = 10**exponent, 10 ** (exponent + decades)
    ticks = log_ticks(low, high, most)
    assert len(ticks) <= most
    assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in ticks)
    assert len(set(tick_labels(ticks, "bytes", log=True))) == len(ticks)
    for end, inner in zip(widened(low, high, most, log=True), (low, high), strict=True):
        leading = end / 10 ** math.floor(math.log10(end) + 1e-9)
        assert any(math.isclose(leading, factor, rel_tol=1e-6) for factor in (1, 2, 5))
        assert max(end / inner, inner / end) < 2.6  # from 2 to 5
    assert widened(low, high, most, log=True)[0] <= low * (1 + 1e-6)
    assert widened(low, high, most, log=True)[1] >= high * (1 - 1e-6)
