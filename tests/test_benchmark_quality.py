"""The quality benchmarks: their scores by hand, the same vectors for all sides, and what the page says."""

import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import compare, contenders, scores
from benchmarks.contenders import Contender, recovery_contenders, several_layers
from benchmarks.pages.quality import contender_table, recovery_section, states_section, verdict
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


def test_every_library_has_as_many_rates_and_labels_are_unique():
    for contender in [
        *contenders.topk_contenders(8192, 409_600, 2048),
        *contenders.recovery_contenders(256, 4.2),
    ]:
        labels = [attempt["label"] for attempt in contender.attempts]
        assert len(set(labels)) == len(labels)
        sweeps = {label.partition(",")[0] for label in labels} - {"auto"}
        aux = "AuxK" in contender.kind
        assert len(sweeps) == (1 if aux else 3) or not contender.plain


def test_states_have_to_be_given(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--only", "quality-states", "--peers", "none"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode != 0
    assert "quality-states needs --states FILE.npy, or --model DIR and --layer N" in done.stderr


# --- the page


def contender(library, kind, fvus, *, plain=True, **more):
    attempts = [
        {
            "label": label,
            "lr": "auto" if label == "auto" else 0.001,
            "fvu": fvu,
            "l0": 4.0,
            "dead": 0.25,
            **more,
        }
        for label, fvu in fvus.items()
    ]
    return {"library": library, "kind": kind, "plain": plain, "attempts": attempts}


FAILED = {
    "library": "SAELens",
    "kind": "gated",
    "plain": True,
    "attempts": [{"label": "x1", "lr": 0.1, "error": "ImportError: no such thing"}],
}


def states_result(*records):
    sizes = {"batch_size": 10, "n_latents": 8, "k": 2, "steps": 4, "d": 3, "held_out": 5}
    return {**sizes, "title": "a model", "source": {}, "contenders": list(records)}


def test_the_verdict_compares_the_best_of_each_side():
    peers = [
        contender("SAELens", "topk", {"x1": 0.3, "x3": 0.2}),
        contender("sparsify", "topk", {"x1": 0.25}),
    ]
    above = verdict([contender("qsae", "topk", {"auto": 0.24, "x1": 0.21}), *peers])
    assert "**above** the best of the peers, which is SAELens (topk) with\n0.2000" in above
    assert "the best of its rates 0.2100, +1.00 points" in above
    assert "its own choice of rate 0.2400, +4.00 points" in above
    reached = verdict([contender("qsae", "topk", {"auto": 0.24, "x1": 0.2}), *peers])
    assert "is at or below the best of the peers" in reached
    assert "Nothing to compare" in verdict([contender("qsae", "topk", {"auto": 0.2}), FAILED])


def test_the_table_has_every_rate_and_marks_the_best():
    lines = contender_table(
        [
            contender("qsae", "topk", {"auto": 0.2, "x1": 0.25}),
            contender("sparsify", "topk", {"x1": 0.3}),
            FAILED,
        ]
    ).splitlines()
    assert (
        lines[2] == "| qsae | topk | auto: 0.2000, x1 (1.0e-03): 0.2500 | **0.2000** | auto | 4.0 | 25.0% |"
    )
    assert lines[3] == "| sparsify | topk | x1 (1.0e-03): 0.3000 | 0.3000 | x1 | 4.0 | 25.0% |"
    assert lines[4] == "| SAELens | gated | x1 (1.0e-01): failed | - | - | - | - |"


def test_the_section_has_changes_and_failures():
    own = contender("qsae", "topk", {"auto": 0.2, "x1": 0.1}, command="qsae train --sae topk")
    changed = contender("qsae", "topk, without AuxK", {"auto": 0.23}, plain=False)
    text = states_section(states_result(own, changed, FAILED))
    assert "d=3, F=8, k=2, B=10, 4 steps (40 vectors), measured on 5 others." in text
    assert "| without AuxK | 0.2300 | +3.00 | 25.0% |" in text  # beside its own rate, not the best
    assert "* SAELens, gated: ImportError: no such thing" in text
    assert "`qsae train --sae topk`" in text


def test_recovery_is_sorted_by_mcc_and_shows_the_run_of_largest_mcc():
    low = contender("qsae", "topk", {"x1": 0.1}, mcc=0.5, mmcs=0.6)
    high = contender("sparsify", "topk", {"x1": 0.2}, mcc=0.7, mmcs=0.8)
    high["attempts"].append({**high["attempts"][0], "label": "x3", "fvu": 0.1, "mcc": 0.4, "l0": 9.0})
    result = states_result(low, high, FAILED)
    result |= {"source": {"features": 6, "mean_l0": 2.5}, "chance": {"mcc": 0.3, "mmcs": 0.35}}
    result |= {"several_layers": ["crosscoder"]}
    text = recovery_section(result)
    rows = [line for line in text.splitlines() if line.startswith(("| qsae", "| sparsify"))]
    assert rows == [
        "| sparsify | topk | 0.700 | 0.800 | 0.200 | 4.0 | 25.0% | x1 | 4.0 to 9.0 |",
        "| qsae | topk | 0.500 | 0.600 | 0.100 | 4.0 | 25.0% | x1 | - |",
    ]
    assert "crosscoder read several layers" in text


def test_every_installed_sae_takes_part_in_recovery_or_reads_several_layers():
    taking_part = {c.kind.split(",")[0] for c in recovery_contenders(256, 4.2) if c.library == "qsae"}
    layered = set(several_layers())
    assert taking_part | layered == set(load_plugins().registry.names("sae"))
    assert taking_part.isdisjoint(layered)
    assert layered >= {"crosscoder", "route"}


def test_a_page_is_written_for_what_was_measured_alone(tmp_path):
    own = contender("qsae", "topk", {"auto": 0.2}, command="qsae train --sae topk")
    machine = {"cpu": "a CPU", "cores": 4, "flags": ["avx2"], "memory_bytes": 8 * 10**9, "huge_pages": None}
    machine |= {"system": "s", "kernel": "k", "python": "3.11", "commit": None, "versions": {}}
    about = {"date": "2026-01-01", "minutes": 1.0, "load_before": 9.0, "command": "c", "seed": 0}
    about |= {"threads": 4, "quick": False, "machine": machine}
    (tmp_path / "results").mkdir()
    peer = contender("SAELens", "topk", {"x1": 0.3})
    peer |= {"distribution": "sae-lens", "version": "6.1", "torch": "2.13", "python": "3.11"}
    (tmp_path / "results" / "quality.json").write_text(
        json.dumps({"about": about, **states_result(own, peer)})
    )
    command = [sys.executable, "-m", "benchmarks", "--render-only", "--out", str(tmp_path)]
    page = tmp_path / "pages" / "performance.md"
    done = subprocess.run(
        [*command, "--page", str(page)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    text = page.with_name("quality.md").read_text()
    assert "qsae's FVU is at or below the best of the peers" in text
    assert "sae-lens 6.1 (torch 2.13, Python 3.11)" in text
    assert "Not measured: quality-states, recovery, recovery-layers." in text
    assert "not idle" not in text  # no number of this page is a time
    assert not page.exists()
