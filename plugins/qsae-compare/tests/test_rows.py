"""Rows of a comparison, from measurements written by hand."""

from __future__ import annotations

import copy
import dataclasses
import pathlib

import pytest
from qsae_compare.measured import Measured
from qsae_compare.rows import by_data, rows

CONFIG = {
    "sae": {"use": "topk", "n_latents": 10, "rotate": "auto"},
    "quantizer": {"use": "none"},
    "encoder_quantizer": {"use": "none"},
    "sparsity": {"use": "topk", "k": 4},
    "data": {"use": "tensors", "path": "x.npy"},
    "train": {"steps": 5, "lr": 0.1, "quantize_after": 0.5},
    "run": {"seed": 0, "name": None},
    "metrics": [],
    "evaluate": [],
}
QUANTIZED = {"quantizer": {"use": "ste", "n_bits": 4}}
SMALL = {"sae": {"n_latents": 5}, "sparsity": {"k": 2}, "train": {"lr": 0.2, "steps": 9}}
"""Four options that are not those of CONFIG."""
WIDTHS = (("one", {}), ("two", SMALL))


def coder(path, fvu, l0=4.0, name="coder", seed=0, changes=None, run=None, **values):
    """A coder of 10 latents in 6 dimensions: decoder 4.5 bits a weight or 32, encoder 32."""
    config = copy.deepcopy(CONFIG)
    for section, block in (changes or {}).items():
        config[section] = config.get(section, {}) | block
    config["run"]["seed"] = seed
    quantized = config["quantizer"]["use"] != "none"
    return Measured(
        folder=pathlib.Path(path),
        run=pathlib.Path(run) if run else pathlib.Path(path),
        name=name,
        config=config,
        sizes={"W_enc": 60, "W_dec": 60},
        artifact={
            "bytes": 300,
            "times_smaller": 2.0,
            "bits_per_weight": {"W_enc": 32.0, "W_dec": 4.5 if quantized else 32.0},
        },
        values={"fvu": fvu, "l0": l0, **values},
    )


def pair(run, name=None, seed=0, **changes):
    """A quantized coder and its float twin."""
    named = changes | {"run": {"name": name}}
    return [
        coder(f"{run}/checkpoints/final", 0.3, changes=QUANTIZED | named, run=run, seed=seed),
        coder(f"{run}/checkpoints/float_twin", 0.2, name="float_twin", changes=named, run=run, seed=seed),
    ]


def labels(coders, **options):
    return [row.label for row in rows(coders, **options)[0]]


def test_one_row_by_hand():
    quantized = coder("r/final", 0.25, changes=QUANTIZED, run="r", kappa=0.5, predicted_delta_fvu=0.07)
    twin = coder("r/float_twin", 0.20, name="float_twin", run="r")
    (row, baseline), left_out = rows([quantized, twin])
    assert left_out == []
    assert row.mean["bits_decoder"] == 4.5
    assert row.mean["bits_encoder"] == 32
    assert row.mean["bits_whole"] == 8 * 300 / 120
    assert row.mean["bytes"] == 300
    assert row.mean["delta_fvu_points"] == pytest.approx(5)
    assert row.mean["predicted_delta_fvu_points"] == pytest.approx(7)
    assert row.mean["ce_recovered"] is None
    assert row.baseline == ("r/float_twin",)
    assert row.equal_l0 is True
    assert not row.is_float
    assert baseline.is_float
    assert baseline.mean["delta_fvu_points"] is None
    assert baseline.mean["predicted_delta_fvu_points"] is None
    assert baseline.equal_l0 is None


def test_nothing_is_predicted_where_the_decoder_is_not_rounded():
    """Its weight error is zero because nothing was rounded; an error that is merely small predicts."""

    def predicted(error, **slots):
        changes = {slot: {"use": use} for slot, use in slots.items()}
        (row,), _ = rows([coder("q", 0.3, changes=changes, predicted_delta_fvu=error)])
        return row.mean["predicted_delta_fvu_points"]

    assert predicted(0.0, encoder_quantizer="rtn") is None
    assert predicted(0.0, code_quantizer="ste") is None
    assert predicted(1e-7, quantizer="rtn") == pytest.approx(1e-5)
    assert predicted(1e-7, quantizer="rtn", encoder_quantizer="rtn") == pytest.approx(1e-5)


def test_seeds_are_one_row_with_mean_spread_and_paired_differences():
    seeds = [coder(f"q{s}", fvu, seed=s, changes=QUANTIZED) for s, fvu in enumerate([0.30, 0.34, 0.32])]
    floats = [coder(f"f{s}", fvu, seed=s) for s, fvu in enumerate([0.20, 0.22, 0.24])]
    (row, _), _ = rows([*seeds, *floats])
    assert [m.seed for m in row.members] == [0, 1, 2]
    assert row.mean["fvu"] == pytest.approx(0.32)
    assert row.std["fvu"] == pytest.approx(0.02)
    # differences of 10, 12 and 8 points
    assert row.mean["delta_fvu_points"] == pytest.approx(10)
    assert row.std["delta_fvu_points"] == pytest.approx(2)
    apart, _ = rows([*seeds, *floats], by_seed=True)
    assert [r.mean["delta_fvu_points"] for r in apart[:3]] == pytest.approx([10, 12, 8])
    assert apart[0].std["fvu"] is None
    assert len({r.label for r in apart}) == 6


def test_a_value_that_one_seed_lacks_is_no_mean():
    (row,), _ = rows([coder("a", 0.3, seed=0), coder("b", None, seed=1)])
    assert row.mean["fvu"] is None
    assert row.std["fvu"] is None


def test_a_float_run_of_the_same_configuration_is_the_baseline():
    """Whatever it says about rotation and when quantization begins; never one of another size or rate."""
    quantized = coder("q", 0.3, changes=QUANTIZED)
    alike = coder("f", 0.2, changes={"sae": {"rotate": False}, "train": {"quantize_after": 0.1}})
    wider = coder("w", 0.1, changes={"sae": {"n_latents": 20}})
    slower = coder("s", 0.15, changes={"train": {"lr": 0.01}})
    found, _ = rows([wider, slower, quantized, alike])
    row = next(r for r in found if not r.is_float)
    assert row.baseline == ("f",)
    assert row.mean["delta_fvu_points"] == pytest.approx(10)
    (alone, *_), _ = rows([quantized, wider])
    assert alone.mean["delta_fvu_points"] is None
    assert alone.equal_l0 is None


def test_a_named_baseline_wins_by_seed():
    quantized = [coder(f"q{s}", 0.3, seed=s, changes=QUANTIZED) for s in (0, 1, 5)]
    twin = coder("r/float_twin", 0.25, name="float_twin", run="q0")
    named = [coder("n0", 0.10, seed=0), coder("n1", 0.20, seed=1)]
    found, _ = rows([*quantized, twin], named, by_seed=True)
    # seed 5 has no rival of its own, and is compared with the mean of both
    assert [r.mean["delta_fvu_points"] for r in found[:3]] == pytest.approx([20, 10, 15])
    (itself, *_), _ = rows(named[:1], named)
    assert itself.mean["delta_fvu_points"] is None


@pytest.mark.parametrize(("l0", "equal"), [(4.0, True), (4.11, True), (4.13, False), (3.8, False)])
def test_another_l0_is_marked(l0, equal):
    quantized = coder("q", 0.3, l0=l0, changes=QUANTIZED, run="r")
    (row, _), _ = rows([quantized, coder("t", 0.2, name="float_twin", run="r")])
    assert row.equal_l0 is equal


def test_twins_of_one_size_are_one_row():
    def pair(run, bits):
        changes = {"quantizer": {"use": "ste", "n_bits": bits}}
        return [
            coder(f"{run}/final", 0.3, changes=changes, run=run),
            coder(f"{run}/float_twin", 0.2, name="float_twin", run=run),
        ]

    found, left_out = rows([*pair("a", 4), *pair("b", 2)])
    assert [r.label for r in found] == [
        "topk (ste) (quantizer.n_bits=4)",
        "float twin",
        "topk (ste) (quantizer.n_bits=2)",
    ]
    assert left_out == []
    assert found[2].baseline == ("b/float_twin",)


def test_rows_of_one_name_say_in_what_they_differ_where_that_is_little():
    wider = pair("b", "q", sae={"n_latents": 20})
    assert labels([*pair("a", "q"), *wider]) == [
        "q (n_latents=10)",
        "float twin (n_latents=10)",
        "q (n_latents=20)",
        "float twin (n_latents=20)",
    ]


def test_a_float_twin_of_a_run_unlike_the_others_is_named_after_its_run():
    named = [*pair("a", "syn"), *pair("b", "ten", **SMALL)]
    assert labels(named) == ["syn", "float twin of syn", "ten", "float twin of ten"]
    assert labels(named[1::2]) == [
        "float twin of a",
        "float twin of b",
    ]  # by their places where they are alone
    seeds = [*pair("a0", "syn-seed0"), *pair("a1", "syn-seed1", seed=1), *pair("b", "ten", **SMALL)]
    assert labels(seeds) == ["syn", "float twin of syn", "ten", "float twin of ten"]
    assert labels(seeds, by_seed=True)[:2] == ["syn (seed=0)", "float twin of syn (seed=0)"]


def test_unlike_rows_of_one_name_have_the_part_of_their_path_that_tells_them_apart():
    here, there = pair("out/one/x/12"), pair("out/two/x/12", **SMALL)
    assert labels([here[0], there[0]]) == ["topk (ste) (one)", "topk (ste) (two)"]
    assert labels([*here, *there])[1::2] == [
        "float twin of topk (ste) (one)",
        "float twin of topk (ste) (two)",
    ]
    third = pair("out/one/y/12", **SMALL | {"train": {"lr": 0.3}})
    assert labels([here[0], there[0], third[0]]) == [f"topk (ste) ({p})" for p in ("one/x", "two/x", "one/y")]
    seeds = [coder(f"out/{run}-seed{s}/x/12", 0.3, seed=s, changes=c) for s in (0, 1) for run, c in WIDTHS]
    assert labels(seeds) == ["topk (none) (one)", "topk (none) (two)"]
    assert labels(seeds, by_seed=True)[0] == "topk (none) (one, seed=0)"


def test_long_values_and_options_that_one_row_lacks_leave_no_long_or_equal_labels():
    paths = [coder(f"out/{p}", 0.3, changes={"data": {"path": f"/{p}" * 30}}) for p in ("one", "two")]
    assert labels(paths) == ["topk (none) (one)", "topk (none) (two)"]
    lacking = coder("out/one", 0.3, changes={"train": {"warmup": None}})
    assert labels([lacking, coder("out/two", 0.3)]) == ["topk (none) (one)", "topk (none) (two)"]


def test_a_baseline_that_was_measured_on_other_data_is_told():
    other = coder("b", 0.2, changes={"data": {"path": "y.npy"}})
    (row,), told = rows([coder("a", 0.3, changes=QUANTIZED)], [other])
    assert row.mean["delta_fvu_points"] == pytest.approx(10)
    assert told == ["a and its baseline b were measured on other data: data.path x.npy against y.npy"]
    here, there = (dataclasses.replace(m, measured_on={"use": "lm"}) for m in (row.members[0], other))
    assert rows([here], [there])[1] == []  # both on a third one
    assert "data.use lm against tensors" in rows([here], [other])[1][0]


def test_rows_are_sorted_by_the_data_that_they_were_measured_on():
    """Under a name that is short where sources differ, and has an option where only that does."""
    here, other = coder("a", 0.3), coder("b", 0.2, changes={"data": {"path": "y.npy"}})
    unmeasured = coder("c", None, changes={"data": {"use": "lm"}})
    there = dataclasses.replace(coder("d", 0.1, changes=SMALL), measured_on={"use": "synthetic"})

    def sorted_by_data(*coders):
        return [(name, [str(r.members[0].folder) for r in on_it]) for name, on_it in by_data(rows(coders)[0])]

    assert sorted_by_data(here, unmeasured, there) == [("tensors", ["a"]), ("synthetic", ["d"])]
    assert sorted_by_data(here, other) == [("tensors (path=x.npy)", ["a"]), ("tensors (path=y.npy)", ["b"])]
    assert sorted_by_data(here, coder("e", 0.1, changes=SMALL)) == [("tensors", ["a", "e"])]


def test_a_repeated_run_is_left_out_and_told():
    found, left_out = rows([coder("a", 0.3), coder("b", 0.3)])
    assert len(found) == 1
    assert left_out == ["b is left out: same configuration and seed as a"]


def test_names_lose_their_seed():
    named = [coder(f"x{s}", 0.3, seed=s, changes={"run": {"name": f"wide-seed{s}"}}) for s in (0, 1)]
    (row,), _ = rows(named)
    assert row.label == "wide"
