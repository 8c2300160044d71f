"""The benchmarks of transcoders: pairs for all sides, what is compared with what, and their page."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest
import torch

from benchmarks import compare, contenders, transcoder_step
from benchmarks.contenders import Contender
from benchmarks.pages.transcoders import states_section, step_section, summary
from benchmarks.qsae_training import atoms
from benchmarks.quality_transcoders import COMPARED, with_skip
from benchmarks.quality_transcoders import contenders as taking_part
from benchmarks.settings import Settings
from benchmarks.vectors import Vectors, draw
from qsae_core.compose.compose import compose_coder
from qsae_core.config.layers import Layer
from qsae_core.config.run import resolve
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.plugins.records import load_plugins

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIDE = """
import sys
sys.path.insert(0, {peers!r})
import torch
from training import Batches, Trained, main

def train(spec, attempt):
    pairs = zip(Batches(spec), Batches(spec, spec.train_target), strict=True)
    x, y = (torch.cat(side) for side in zip(*pairs, strict=True))
    W = torch.linalg.lstsq(x, y).solution
    return Trained(lambda x: (x @ W, torch.ones(len(x), 3)), W[:3])

main(train, "torch")
"""


def test_targets_are_drawn_with_their_vectors(tmp_path):
    rows = np.random.default_rng(0).normal(size=(2000, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    np.save(tmp_path / "y.npy", -rows[:, :4])
    data = {"use": "tensors", "path": str(tmp_path / "x.npy"), "target_path": str(tmp_path / "y.npy")}
    drawn = draw(data, tmp_path / "drawn", steps=5, batch_size=50, held_out=60, seed=3)
    assert drawn.arguments[-2:] == ["--data.target-path", str(tmp_path / "y.npy")]
    assert len(drawn.files) == 4
    for x, y, count in (
        (drawn.train, drawn.train_target, 250),
        (drawn.held_out, drawn.held_out_target, 60),
    ):
        assert y is not None
        assert np.load(x).shape == (count, 6)
        assert np.array_equal(np.load(y), -np.load(x)[:, :4])
    assert drawn.wanted == drawn.held_out_target
    plain = draw(data | {"target_path": None}, tmp_path / "plain", steps=2, batch_size=50, held_out=9, seed=0)
    assert (plain.train_target, plain.wanted, len(plain.files)) == (None, plain.held_out, 2)


def test_a_peer_is_given_targets_and_measured_on_them(tmp_path, monkeypatch):
    """y = x W is what the side fits: it leaves nothing of its own test targets."""
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=(70, 4)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    files = {name: tmp_path / f"{name}.npy" for name in ("train", "target", "test", "test_target", "other")}
    np.save(files["train"], x[:40])
    np.save(files["target"], x[:40] @ W)
    np.save(files["test"], x[40:])
    np.save(files["test_target"], x[40:] @ W)
    np.save(files["other"], -x[40:] @ W)
    (tmp_path / "side.py").write_text(SIDE.format(peers=str(ROOT / "benchmarks" / "peers")))
    monkeypatch.setitem(contenders.SCRIPTS, "Fake", (str(tmp_path / "side.py"), "sae-lens"))
    python = tmp_path / "environments" / "sae-lens" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    settings = Settings(tmp_path / "out", tmp_path / "environments", ("sae-lens",), True, 0, 1, "c")
    (settings.folder / "name").mkdir(parents=True)
    sizes = COMPARED._replace(batch_size=10, n_latents=3, k=3, steps=4)
    fvus = []
    for wanted in ("test_target", "other"):
        vectors = Vectors({"use": "tensors"}, files["train"], files["test"], {})
        vectors = vectors._replace(train_target=files["target"], held_out_target=files[wanted])
        fake = [Contender("Fake", "linear", ({"label": "x1", "lr": 1.0},))]
        (record,) = compare.compare("name", vectors, sizes, fake, settings)["contenders"]
        fvus.append(record["attempts"][0]["fvu"])
    assert fvus[0] == pytest.approx(0, abs=1e-8)
    assert fvus[1] > 3.9  # twice the vectors, squared, beside what they vary


def test_atoms_of_a_transcoder_leave_the_skip_connection_out():
    tree = {"transcoder": {"use": "transcoder", "n_latents": 24, "skip": True}}
    tree |= {"sparsity": {"use": "topk", "k": 3}, "data": {"use": "synthetic"}}
    registry = load_plugins().registry
    coder = compose_coder(resolve([Layer(tree, "test")], registry), registry, CoderShape(8, 6))
    x = 5 + 3 * torch.randn(64, 8)
    coder.initialize(Batch(x, x[:, :6].sin()))
    with torch.no_grad():
        coder.get_parameter("W_skip").normal_()
        torch.testing.assert_close(atoms(coder.eval()), coder.atoms(), rtol=1e-4, atol=1e-4)


def test_both_sides_take_part_without_and_with_a_skip_connection():
    found = taking_part(COMPARED)
    for skip in (False, True):
        chosen = [c for c in found if with_skip(c.kind) == skip]
        assert (chosen[0].library, chosen[0].kind.partition(",")[0]) == ("qsae", "transcoder")
        assert {c.library for c in chosen} == {"qsae", "sparsify"}
        for contender in chosen:
            for attempt in contender.attempts:
                flags = attempt.get("arguments", [])
                assert ("--skip" in flags or attempt.get("skip", False)) == skip
    sides = list(transcoder_step.sides())
    assert {(side.library, side.options["skip"]) for side in sides} == {
        (library, skip) for library in ("qsae", "sparsify") for skip in (False, True)
    }


def contender(library, kind, fvu, label="auto", **more):
    attempt = {"label": label, "lr": "auto", "fvu": fvu, "l0": 4.0, "dead": 0.25, "command": "qsae train"}
    return {"library": library, "kind": kind, "plain": True, "attempts": [attempt]} | more


def test_the_page_compares_what_has_a_skip_connection_with_what_has_one():
    records = [
        contender("qsae", "transcoder", 0.3),
        contender("sparsify", "transcoder, adam", 0.4, "x20"),
        contender("qsae", "transcoder, skip", 0.2),
        contender("qsae", "transcoder, skip, other seeds", 0.21, "auto, seed 1", plain=False),
        contender("sparsify", "transcoder, adam, skip", 0.19, "x10"),
        contender("qsae", "transcoder, skip, another schedule", 0.18, "x20", plain=False),
    ]
    result = {"title": "m, mlp_in to mlp_out", "kind": "code", "contenders": records, "d": 3, "held_out": 5}
    result |= COMPARED._replace(held_out=5)._asdict()
    lines = summary([result]).splitlines()
    start = "| m, mlp_in to mlp_out: code,"
    end = "transcoder, adam, x20 |"
    assert f"{start} without a skip connection | 0.3000 | 25.0% | 0.4000 | 25.0% | -10.00 | {end}" in lines
    end = "transcoder, adam, skip, x10 |"
    assert f"{start} with a skip connection | 0.2000 | 25.0% | 0.1900 | 25.0% | +1.00 | {end}" in lines
    without, _, with_one = states_section(result).partition("### With a skip connection")
    assert "0.3000 at its own rate, is at or below" in without
    assert "other seeds" not in without
    assert "0.2000 at its own rate, is **above**" in with_one
    assert "| qsae | transcoder, skip | auto | 0.2000, 0.2100 |" in with_one
    assert "| skip, another schedule | 0.1800 | -2.00 | 25.0% |" in with_one
    assert "another schedule" not in without


def test_a_side_is_as_fast_as_sparsify_with_the_same_skip_connection():
    def side(library, skip, seconds):
        rounds = [{"seconds": [seconds], "product_seconds": [0.5], "peak_bytes": 1}]
        options = {"skip": skip}
        return {"library": library, "what": "a", "precision": "fp32", "options": options, "rounds": rounds}

    sides = [side("qsae", False, 0.1), side("sparsify", False, 0.4)]
    sides += [side("qsae", True, 0.2), side("sparsify", True, 0.3)]
    text = step_section({"shapes": [{"batch_size": 100, "d": 2, "n_latents": 4, "k": 1, "sides": sides}]})
    assert "| qsae | a | 1,000 | 4.00 | 0.20 |" in text
    assert "| qsae | a | 500 | 1.50 | 0.40 |" in text
