"""Figures: what of a run becomes which value of a chart."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qsae_report.charts import Series, svg
from qsae_report.charts.layout import lay_out
from qsae_report.charts.primitives import Circle, Text
from qsae_report.figures import (
    RatePoint,
    activation_histogram,
    coder_names,
    density_histogram,
    rate_distortion,
    similarity_histogram,
    survival_histogram,
    training_curves,
)
from qsae_report.training_log import Member, TrainingLog

MAIN, TWIN = Member(), Member(twin=True)


def samples(rows, tops, n_tokens=100):
    """Firings of each latent by its bins, the strongest first; an eighth of an octave each."""
    arrays = {"histogram": np.array(rows, dtype=np.uint32), "histogram_top": np.array(tops, dtype=np.int16)}
    return SimpleNamespace(arrays=arrays, about={"bins": {"of_an_octave": 8, "octaves_below_1": 16}})


def test_a_line_for_each_coder_and_points_for_what_was_held_out():
    log = TrainingLog(
        {"fvu": {MAIN: {1: 0.9, 2: 0.5}, TWIN: {1: 0.8, 2: None}}, "loss": {MAIN: {1: 100.0, 2: 50.0}}},
        {"fvu": {MAIN: {2: 0.6}}, "l0": {MAIN: {2: 8.0}}},
    )
    curves = training_curves({"a": log})
    assert list(curves) == ["loss", "fvu"]
    assert curves["fvu"].series == [
        Series("a", [1, 2], [0.9, 0.5], look=0),
        Series("a, float twin", [1, 2], [0.8, None], look=1),
        Series("a, held out", [2], [0.6], points=True, line=False, look=0, legend=False),
    ]
    assert not curves["loss"].y.log
    own = training_curves({"": log})["fvu"].series  # of the report's own run
    assert [series.name for series in own] == ["this coder", "float twin", "this coder, held out"]
    alone = TrainingLog({"fvu": {MAIN: {1: 0.9}}}, {"fvu": {MAIN: {2: 0.6}}})
    assert [series.name for series in training_curves({"": alone})["fvu"].series] == ["", "held out"]


def test_runs_lie_over_one_another_and_layers_are_named():
    one = TrainingLog({"l0": {Member(layer="1"): {1: 8.0}, Member(layer="2"): {1: 9.0}}})
    two = TrainingLog({"l0": {MAIN: {5: 7.0}, Member(True, "3"): {5: 6.0}}})
    names = [series.name for series in training_curves({"one": one, "two": two})["l0"].series]
    assert names == ["one, layer 1", "one, layer 2", "two", "two, float twin, layer 3"]


def test_a_coder_looks_alike_in_all_curves_though_another_has_not_logged_all():
    one = TrainingLog({"loss": {MAIN: {1: 8.0}}})
    two = TrainingLog({"loss": {MAIN: {1: 7.0}}, "fvu": {MAIN: {1: 0.5}}})
    curves = training_curves({"one": one, "two": two})
    assert [(s.name, s.look) for s in curves["loss"].series] == [("one", 0), ("two", 1)]
    assert [(s.name, s.look) for s in curves["fvu"].series] == [("two", 1)]
    assert coder_names({"one": one, "two": two}) == ["one", "two"]


def test_what_was_held_out_is_told_in_a_note_and_not_in_the_legend():
    log = TrainingLog({"fvu": {MAIN: {1: 0.5}}, "l0": {MAIN: {1: 8.0}}}, {"fvu": {MAIN: {1: 0.6}}})
    curves = training_curves({"": log})
    assert [series.name for series in curves["l0"].series] == [""]
    assert [series.name for series in curves["fvu"].series] == ["", "held out"]
    assert curves["fvu"].notes == ["Points: on held-out vectors. Lines: on batches of training."]
    assert not curves["l0"].notes
    assert ">held out<" not in svg(curves["fvu"])
    assert "held out; step 1" in svg(curves["fvu"])


@pytest.mark.parametrize(("values", "log"), [([21.0, 1.0], True), ([19.0, 1.0], False), ([30.0, 0.0], False)])
def test_a_loss_of_many_sizes_is_drawn_by_factors(values, log):
    made = TrainingLog({"loss": {MAIN: dict(enumerate(values))}, "fvu": {MAIN: dict(enumerate(values))}})
    curves = training_curves({"": made})
    assert (curves["loss"].y.log, curves["fvu"].y.log) == (log, False)


def test_densities_by_quarters_of_a_power_of_ten():
    # log10: -2, -2, -1.99, -1.70; -inf and an undefined one are no bars
    chart = density_histogram({"": ([0.01, 0.01, 0.0102, 0.02, 0.0, float("nan")], 500)})
    (bars,) = chart.groups
    assert bars.edges == pytest.approx([10**-2, 10**-1.75, 10**-1.5])
    assert bars.counts == [3, 1]
    assert chart.notes == ["1 of 5 latents never fire on 500 tokens; they have no bar."]
    assert chart.y.label == "latents"


def test_densities_of_two_coders_are_shares():
    chart = density_histogram({"a": ([0.01, 0.0], None), "b": ([0.1, 0.1, 0.1], 9)})
    assert [bars.counts for bars in chart.groups] == [[0.5], [1.0]]
    assert chart.y.format == "percent"
    assert chart.notes[0].startswith("a: 1 of 2 latents never fire;")
    assert chart.notes[1].startswith("b: 0 of 3 latents never fire on 9 tokens;")


def test_activations_of_all_latents_by_half_octaves():
    # bin b begins at 2^(b/8 - 16): 128 at 1, 136 at 2. Half an octave is 4 bins: 132 begins at sqrt 2
    found = samples([[1, 2, 0, 3], [4, 0, 0, 0], [0, 0, 0, 0]], [136, 132, 0])
    (bars,) = activation_histogram({"": found}).groups
    # 136: 1 firing; 135: 2; 133: 3; 132: 4 -> 9 of 10 from sqrt 2 to 2, 1 of 10 above
    assert bars.edges == pytest.approx([2**0.5, 2, 2**1.5])
    assert bars.counts == pytest.approx([0.9, 0.1])


def test_coders_that_never_fire_have_no_bars():
    assert activation_histogram({"": samples([[0, 0]], [0])}).groups[0].counts == []
    assert density_histogram({"": ([0.0, 0.0], 10)}).groups[0].counts == []
    assert "no values" in svg(density_histogram({"": ([0.0, 0.0], 10)}))


def test_similarities_end_at_one():
    (bars,) = similarity_histogram({"": [0.5, 0.51, 0.99, 1.0, None]}).groups
    assert (bars.edges[0], bars.edges[-1]) == (0.5, 1.0)
    assert (bars.counts[0], bars.counts[-1], sum(bars.counts)) == (2, 2, 4)
    assert bars.edges[10] == 0.7  # and not 35 * 0.02, which is 0.7000000000000001


def test_survival_has_its_borders_and_says_who_is_not_judged():
    chart = survival_histogram({"": [1.0, 0.91, 0.9, 0.49, float("nan")]}, survived=0.9, damaged=0.5)
    (bars,) = chart.groups
    assert bars.edges[-1] == 1.0
    assert dict(zip(bars.edges, bars.counts, strict=False))[0.9] == 2  # .91 and .9
    assert bars.counts[-1] == 1
    assert bars.edges[0] == 0.45
    assert [(rule.at, rule.text) for rule in chart.rules] == [
        (0.5, "damaged below 0.5"),
        (0.9, "survived from 0.9"),
    ]
    assert chart.notes == [
        "1 of 5 latents have no r: they fire too seldom in full precision to be judged, or have one value "
        "alone here."
    ]


def test_rate_and_distortion_joins_the_points_of_a_curve_by_their_rate():
    points = [
        RatePoint("levels", "2 bits", 2000, 0.2, 0.01),
        RatePoint("float twin", "float32", 9000, 0.1),
        RatePoint("levels", "1 bit", 1000, 0.3),
    ]
    chart = rate_distortion(points)
    levels, twin = chart.series
    assert (levels.x, levels.y, levels.error, levels.labels) == (
        [1000, 2000], [0.3, 0.2], [None, 0.01], ["1 bit", "2 bits"],
    )  # fmt: skip
    assert twin.name == "float twin"
    assert (chart.x.format, chart.x.log) == ("bytes", True)
    assert rate_distortion(points, "bits").x.format == "number"
    assert levels.legend


def test_points_that_are_labelled_with_their_curves_names_need_no_legend():
    chart = rate_distortion([RatePoint("a", "a", 10, 0.5), RatePoint("b", "b", 20, 0.4)])
    assert [series.legend for series in chart.series] == [False, False]
    assert svg(chart).count(">a<") == 1  # the label


def test_where_a_label_has_no_room_there_is_a_legend_and_no_mark_is_hidden():
    name = "a coder with a name that is rather long"
    given = [("a", 1000, 0.4), ("twin", 2000, 0.2), (name, 2001, 0.2)]
    points = [RatePoint(coder, coder, size, fvu) for coder, size, fvu in given]
    items = lay_out(rate_distortion(points), 240, 200).items
    texts = [item.text for item in items if isinstance(item, Text)]
    assert [text for text in texts if text in ("a", "twin")] == ["a", "twin"]
    assert name in "".join(texts)
    named = [item for item in items if isinstance(item, Circle) and item.hover]  # the legend's say nothing
    alone, below, above = named
    assert (below.x, below.y) == pytest.approx((above.x, above.y), abs=1)
    assert alone.radius == above.radius < below.radius
    easy = lay_out(rate_distortion(points[:2]), 240, 200).items  # labels have room: no legend
    assert [item.text for item in easy if isinstance(item, Text)].count("a") == 1


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50))
def test_every_value_is_in_its_bin(values):
    (bars,) = similarity_histogram({"": values}).groups
    for low, high, count in zip(bars.edges, bars.edges[1:], bars.counts, strict=False):
        inside = [v for v in values if low + 1e-4 <= v < high - 1e-4]
        near = [v for v in values if low - 1e-4 <= v <= high + 1e-4]
        assert len(inside) <= count <= len(near)
    assert sum(bars.counts) == len(values)
