"""Rows of a comparison, from measurements written by hand."""

from __future__ import annotations

import copy
import dataclasses
import pathlib

import pytest

from qsae_core.comparison import rows
from qsae_core.measured import Measured

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


def test_a_baseline_that_was_measured_on_other_data_is_told():
    other = coder("b", 0.2, changes={"data": {"path": "y.npy"}})
    (row,), told = rows([coder("a", 0.3, changes=QUANTIZED)], [other])
    assert row.mean["delta_fvu_points"] == pytest.approx(10)
    assert told == ["a and its baseline b were measured on other data: data.path x.npy against y.npy"]
    here, there = (dataclasses.replace(m, measured_on={"use": "lm"}) for m in (row.members[0], other))
    assert rows([here], [there])[1] == []  # both on a third one
    assert "data.use lm against tensors" in rows([here], [other])[1][0]


def test_a_repeated_run_is_left_out_and_told():
    found, left_out = rows([coder("a", 0.3), coder("b", 0.3)])
    assert len(found) == 1
    assert left_out == ["b is left out: same configuration and seed as a"]


def test_names_lose_their_seed():
    named = [coder(f"x{s}", 0.3, seed=s, changes={"run": {"name": f"wide-seed{s}"}}) for s in (0, 1)]
    (row,), _ = rows(named)
    assert row.label == "wide"
