"""The benchmark of SAEs that read several layers: what atoms are compared with, a run, and its table."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.contenders import is_routed, several_layers
from benchmarks.pages.recovery import layers_section
from benchmarks.recovery_layers import paired
from benchmarks.scores import recovery
from benchmarks.vectors import describe

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_an_atom_is_compared_with_what_it_can_be():
    dictionary_ALD = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [-1.0, 0.0]]])  # 90 degrees per layer
    joint, truth = paired(dictionary_ALD, dictionary_ALD)
    assert recovery(joint, truth)["mcc"] == pytest.approx(1)
    # another feature's direction in the second layer is orthogonal to the one that is right
    swapped = np.stack([dictionary_ALD[:, 0], dictionary_ALD[::-1, 1]], axis=1)
    assert recovery(*paired(swapped, dictionary_ALD))["mcc"] == pytest.approx(0.5)
    single, truth = paired(np.array([[2.0, 0.0], [0.6, 0.8]]), dictionary_ALD)
    assert truth.tolist() == [[1, 0], [0, 1], [0, 1], [-1, 0]]
    assert recovery(single, truth)["mcc"] == pytest.approx((1 + 0.8) / 2)


def test_features_have_a_direction_in_every_layer():
    source, dictionary_ALD = describe({"use": "synthetic", "layers": 2}, seed=0)
    assert dictionary_ALD.shape == (source["features"], 2, 64)
    np.testing.assert_allclose(np.linalg.norm(dictionary_ALD, axis=2), 1, rtol=1e-5)
    assert np.abs((dictionary_ALD[:, 0] * dictionary_ALD[:, 1]).sum(1)).mean() < 0.2


def test_routed_saes_are_those_with_one_direction_for_all_layers():
    assert {name for name in several_layers() if is_routed(name)} == {"route", "route-matryoshka"}
    assert not is_routed("topk")


def test_a_small_run_and_its_table(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--peers", "none", "--threads", "1"]
    command += [
        "--only",
        "recovery-layers",
        "--out",
        str(tmp_path),
        "--page",
        str(tmp_path / "performance.md"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results" / "recovery-layers.json").read_text())
    for record in result["contenders"]:
        (attempt,) = record["attempts"]
        assert 0 < attempt["chance"] < attempt["mcc"] < 1  # initial atoms know the data
    text = (tmp_path / "recovery.md").read_text()
    assert "## Recovery of a dictionary in 2 layers" in text
    assert all(f"| {kind} |" in text for kind in ("crosscoder", "route"))


def test_the_table_shows_the_run_of_largest_mcc():
    attempt = {"label": "x3", "lr": 0.1, "fvu": 0.2, "l0": 4.0, "dead": 0.25, "mmcs": 0.8, "chance": 0.3}
    record = {"library": "qsae", "kind": "crosscoder", "n_latents": 8}
    record["attempts"] = [{**attempt, "mcc": 0.7}, {**attempt, "mcc": 0.6, "fvu": 0.1}]
    failed = {"library": "qsae", "kind": "route", "n_latents": 16, "attempts": [{"error": "it broke"}]}
    sizes = {"batch_size": 4, "k": 2, "steps": 3, "held_out": 9, "d": 5, "layers": 2}
    text = layers_section({**sizes, "contenders": [failed, record]})
    assert "| crosscoder | 8 | 0.700 | 0.300 | 0.800 | 0.200 | 4.0 | 25.0% | x3 |" in text
    assert "* qsae, route: it broke" in text
