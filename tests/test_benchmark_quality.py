"""The quality benchmarks: their scores by hand, the same vectors for all sides, and how sides are run."""

import itertools
import pathlib
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import compare, contenders, scores
from benchmarks.contenders import Contender
from benchmarks.qsae_training import atoms
from benchmarks.settings import Settings
from benchmarks.vectors import Vectors, draw
from qsae_cli.main import cli
from qsae_core.compose.compose import compose_coder
from qsae_core.config.layers import Layer
from qsae_core.config.run import resolve
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch
from qsae_core.plugins.records import load_plugins
from qsae_core.training.trainer import Trainer

ROOT = pathlib.Path(__file__).resolve().parents[1]
FAKE_SIDE = """
import sys
sys.path.insert(0, {peers!r})
from training import Batches, Trained, main

def train(spec, attempt):
    mean = sum(batch.mean(0) for batch in Batches(spec)) / spec.steps
    if attempt["kind"] == "broken":
        raise ValueError("no such kind")
    def reconstruct(x):
        codes = x.new_tensor([1.0, 0.0, 2.0]).expand(len(x), 3)
        perfect = x / 0 if attempt["kind"] == "not finite" else x
        return mean.expand_as(x) if attempt["kind"] == "mean" else perfect, codes
    return Trained(reconstruct, x_of(spec))

def x_of(spec):
    import torch
    return torch.eye(3, spec.d)

main(train, "torch")
"""


# --- scores


def test_fvu_by_hand():
    # the mean is (1, 0), so the spread is 1 + 1 = 2; the error is 1 + 0.25
    x = np.array([[0.0, 0.0], [2.0, 0.0]], dtype=np.float32)
    assert scores.fvu(x, np.array([[1.0, 0.0], [2.0, 0.5]])) == pytest.approx(1.25 / 2)
    assert scores.fvu(x, x) == 0
    assert scores.fvu(x, np.broadcast_to(x.mean(0), x.shape)) == 1


def test_l0_and_dead_by_hand():
    x = np.eye(4, dtype=np.float32)
    arrays = {"x_hat": x, "fired": np.array([4, 2, 0, 0, 0]), "atoms": np.eye(5, 4)}
    # 6 firings on 4 vectors; three of five latents never fire
    assert scores.score(x, arrays, None) == pytest.approx({"fvu": 0, "l0": 1.5, "dead": 0.6})


def test_recovery_by_hand():
    dictionary = np.eye(2)
    # both atoms are nearest to the first row (cos 1 and 0 against 0.8 and 0.6): only one may have it
    atoms_FD = np.array([[3.0, 0.0], [0.8, -0.6]])
    found = scores.recovery(atoms_FD, dictionary)
    assert found["mcc"] == pytest.approx((1 + 0.6) / 2)
    assert found["mmcs"] == pytest.approx((1 + 0.6) / 2)
    crowded = scores.recovery(np.array([[0.8, 0.6], [0.9, 0.1]]), dictionary)
    norm = np.hypot(0.9, 0.1)
    assert crowded["mcc"] == pytest.approx((0.9 / norm + 0.6) / 2)
    same = scores.recovery(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.8, 0.6]]))
    assert same["mmcs"] == pytest.approx((1 + 0.8) / 2)
    assert same["mcc"] == pytest.approx((1 + 0.8) / 2)


def test_a_dictionary_in_another_order_scale_and_sign_is_recovered_whole():
    rng = np.random.default_rng(0)
    dictionary = rng.normal(size=(20, 8))
    other = dictionary[rng.permutation(20)] * rng.normal(size=(20, 1))
    with_dead_row = np.concatenate([other, np.zeros((1, 8))])
    assert scores.recovery(other, dictionary) == pytest.approx({"mcc": 1, "mmcs": 1})
    assert scores.recovery(with_dead_row, dictionary) == pytest.approx({"mcc": 1, "mmcs": 1})
    assert scores.recovery(other[:10], dictionary)["mcc"] == pytest.approx(1)
    assert scores.recovery(other[:10], dictionary)["mmcs"] < 0.95


def test_the_matching_is_the_best_of_all():
    rng = np.random.default_rng(1)
    for trial in range(60):
        rows, columns = 1 + trial % 5, 1 + trial % 5 + trial % 3
        cost = (
            rng.integers(0, 5, size=(rows, columns)).astype(float)
            if trial % 2
            else rng.normal(size=(rows, columns))
        )
        chosen = scores.match(cost)
        assert len(set(chosen)) == rows
        every = (
            sum(cost[i, p[i]] for i in range(rows)) for p in itertools.permutations(range(columns), rows)
        )
        assert cost[np.arange(rows), chosen].sum() == pytest.approx(min(every))
    with pytest.raises(ValueError, match="3 rows for 2 columns"):
        scores.match(np.zeros((3, 2)))


@pytest.mark.parametrize("rotate", [False, True])
def test_atoms_are_what_a_latent_adds_in_the_data_space(rotate):
    tree = {"sae": {"use": "topk", "n_latents": 24, "rotate": rotate}, "sparsity": {"use": "topk", "k": 3}}
    registry = load_plugins().registry
    coder = compose_coder(resolve([Layer(tree, "test")], registry), registry, CoderShape(8, 8))
    x = 5 + 3 * torch.randn(64, 8)
    coder.initialize(Batch(x, x))
    with torch.no_grad():
        codes = coder.eval().encode(x)
        bias = coder.decode(codes.with_values(torch.zeros_like(codes.values)))
        sums = codes.to_dense() @ atoms(coder) + bias
        torch.testing.assert_close(sums, coder.decode(codes), rtol=1e-4, atol=1e-4)
    assert isinstance(codes, SparseCodes)


# --- the same vectors


def test_peers_are_given_the_batches_on_which_qsae_trains(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).normal(size=(2000, 6)).astype(np.float32)
    np.save(tmp_path / "states.npy", rows)
    data = {"use": "tensors", "path": str(tmp_path / "states.npy"), "block_rows": 16}
    drawn = draw(data, tmp_path / "drawn", steps=9, batch_size=50, held_out=60, seed=3)
    trained, step = [], Trainer.step

    def watched(self, batch, number):
        trained.append(batch.x.clone())
        return step(self, batch, number)

    monkeypatch.setattr(Trainer, "step", watched)
    arguments = ["--n-latents", "32", "--k", "2", "--steps", "9", "--batch-size", "50", "--seed", "3"]
    arguments += ["--eval", "reconstruction", "--out", str(tmp_path / "runs"), *drawn.arguments]
    done = CliRunner().invoke(cli, ["train", "--sae", "topk", *arguments])
    assert done.exit_code == 0, done.output
    assert np.array_equal(np.load(drawn.train), torch.cat(trained).numpy())
    # nobody trains on what is held out
    held_out = {row.tobytes() for row in np.load(drawn.held_out)}
    assert len(held_out) == 60
    assert not held_out & {row.tobytes() for row in np.load(drawn.train)}


def test_synthetic_vectors_come_with_their_dictionary(tmp_path):
    drawn = draw({"use": "synthetic"}, tmp_path, steps=2, batch_size=8, held_out=16, seed=0)
    assert np.load(drawn.dictionary).shape == (256, 64)
    assert np.load(drawn.train).shape == (16, 64)


# --- running sides


def settings_with(tmp_path, peers=("sae-lens",)):
    python = tmp_path / "environments" / "sae-lens" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return Settings(tmp_path / "out", tmp_path / "environments", peers, True, 0, 1, "c")


def test_a_peer_is_scored_on_what_it_leaves_and_a_failure_is_its_reason(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "train.npy", rng.normal(size=(40, 4)).astype(np.float32))
    np.save(tmp_path / "held_out.npy", rng.normal(size=(30, 4)).astype(np.float32))
    script = tmp_path / "side.py"
    script.write_text(FAKE_SIDE.format(peers=str(ROOT / "benchmarks" / "peers")))
    monkeypatch.setitem(contenders.SCRIPTS, "Fake", (str(script), "sae-lens"))
    monkeypatch.setitem(contenders.SCRIPTS, "Absent", (str(script), "eai-sparsify"))
    settings = settings_with(tmp_path)
    (settings.folder / "name").mkdir(parents=True)
    vectors = Vectors({"use": "tensors"}, tmp_path / "train.npy", tmp_path / "held_out.npy", {})
    sizes = compare.Sizes(batch_size=10, n_latents=3, k=2, steps=4, held_out=30)
    kinds = ("perfect", "mean", "not finite")
    several = tuple({"label": kind, "lr": 1.0, "kind": kind} for kind in kinds)
    broken = ({"label": "x1", "lr": 1.0, "kind": "broken"},)
    taking_part = [
        Contender("Fake", "several", several),
        Contender("Fake", "broken", broken),
        Contender("Absent", "topk", broken),
    ]
    result = compare.compare("name", vectors, sizes, taking_part, settings)
    assert [record["kind"] for record in result["contenders"]] == [
        "several",
        "broken",
    ]  # one is not asked for
    perfect, mean, infinite = result["contenders"][0]["attempts"]
    assert (perfect["fvu"], perfect["l0"], perfect["dead"]) == (0, 2, pytest.approx(1 / 3))
    assert mean["fvu"] == pytest.approx(1, abs=0.2)
    assert infinite["error"] == "its reconstructions are not finite"
    assert result["contenders"][1]["attempts"][0]["error"] == "ValueError: no such kind"
    assert compare.best(result["contenders"][0]) is perfect
    assert compare.best(result["contenders"][1]) is None
