"""What the quality benchmarks train and measure on: texts split by document, and who takes part."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np

from benchmarks import contenders, kept, qsae_training, texts
from benchmarks.contenders import Contender
from benchmarks.kept import Kept
from benchmarks.peers.training import Spec
from benchmarks.quality import ALONE, COMPARED, sizes
from benchmarks.settings import Settings
from benchmarks.vectors import draw, harvest

ROOT = pathlib.Path(__file__).resolve().parents[1]


# --- who takes part


def test_a_peer_is_trained_once_for_what_it_depends_on(tmp_path, monkeypatch):
    vectors = [tmp_path / "train.npy", tmp_path / "held_out.npy"]
    for path in vectors:
        np.save(path, np.zeros((4, 2), dtype=np.float32))
    (tmp_path / "side.py").write_text("as it is")
    monkeypatch.setitem(contenders.SCRIPTS, "Fake", (str(tmp_path / "side.py"), "sae-lens"))
    peer = Contender("Fake", "topk", ({"label": "x1", "lr": 1.0},))
    spec = Spec("out", "train", "held_out", 2, 3, 1, 0, 1, list(peer.attempts))
    trained = []

    def ask(spec=spec, **values):
        def measure():
            trained.append(spec)
            return {"attempts": [{"fvu": 0.5, **values}]}

        return Kept(tmp_path / "kept", *vectors).record(peer, spec, measure)

    assert ask() == ask() == ask(spec._replace(threads=8, out="elsewhere")) == {"attempts": [{"fvu": 0.5}]}
    assert len(trained) == 1
    ask(spec._replace(seed=1))
    (tmp_path / "side.py").write_text("another script")
    ask()
    np.save(vectors[0], np.ones((4, 2), dtype=np.float32))
    ask()
    assert len(trained) == 4
    for expected in (5, 6):  # what failed is tried again
        ask(spec._replace(seed=2), error="no memory")
        assert len(trained) == expected


def test_qsae_is_trained_again_when_its_source_changes(tmp_path, monkeypatch):
    np.save(tmp_path / "vectors.npy", np.zeros((4, 2), dtype=np.float32))
    (tmp_path / "qsae_core" / "coders").mkdir(parents=True)
    source = tmp_path / "qsae_core" / "coders" / "linear.py"
    source.write_text("as it is")
    monkeypatch.setattr(kept, "ROOT", tmp_path)
    own = contenders.topk_contenders(COMPARED)[0]
    spec = Spec("out", "train", "held_out", 2, 3, 1, 0, 1, list(own.attempts))
    results = iter(range(3))

    def ask():
        records = Kept(tmp_path / "kept", tmp_path / "vectors.npy", tmp_path / "vectors.npy")
        return records.record(own, spec, lambda: {"attempts": [{"fvu": next(results)}]})

    assert ask() == ask() == {"attempts": [{"fvu": 0}]}
    source.write_text("another")
    assert ask() == {"attempts": [{"fvu": 1}]}


def test_every_library_has_as_many_rates_and_labels_are_unique():
    taking_part = [*contenders.topk_contenders(COMPARED), *contenders.recovery_contenders(256, 4.2)]
    assert len({(c.library, c.kind) for c in taking_part[:8]}) == 8
    for contender in taking_part:
        labels = [attempt["label"] for attempt in contender.attempts]
        assert len(set(labels)) == len(labels)
        sweeps = {label.partition(",")[0] for label in labels} - {"auto"}
        aux = "AuxK" in contender.kind
        assert len(sweeps) == (1 if aux else 3) or contender is taking_part[0]


def test_qsae_takes_part_with_its_defaults_alone():
    (attempt,) = contenders.topk_contenders(COMPARED)[0].attempts
    assert attempt == {"label": "auto", "lr": "auto", "arguments": ["--sae", "topk"]}


def test_the_peers_may_be_compared_at_fewer_latents():
    settings = Settings(ROOT, ROOT, (), False, 0, 1, "c")
    assert sizes(settings) == (COMPARED, ALONE)
    fewer = dataclasses.replace(settings, n_latents=512)
    assert sizes(fewer) == (COMPARED._replace(n_latents=512), ALONE)


def test_an_attempt_is_trained_again_with_other_seeds():
    peer = Contender("Fake", "topk", ({"label": "x1", "lr": 1.0}, {"label": "x3", "lr": 3.0, "kind": "topk"}))
    again = contenders.other_seeds(peer, "x3", (4, 5))
    assert (again.library, again.kind, again.plain) == ("Fake", "topk, other seeds", False)
    assert again.attempts == (
        {"label": "x3, seed 4", "lr": 3.0, "kind": "topk", "seed": 4},
        {"label": "x3, seed 5", "lr": 3.0, "kind": "topk", "seed": 5},
    )
    own = {"label": "auto", "lr": "auto", "arguments": [], "seed": 5}
    arguments = qsae_training.arguments_of(own, COMPARED, [], seed=0)
    assert arguments[arguments.index("--seed") + 1] == "5"


def test_a_kind_of_text_needs_a_model(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--only", "quality-news", "--peers", "none"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode != 0
    assert "quality-news needs --model DIR and --layer N" in done.stderr


# --- texts


def test_documents_are_on_one_side_and_short_ones_on_none(tmp_path, monkeypatch):
    found = [f"document {n} " * 200 for n in range(100)] + ["short", "document 0 " * 200]
    monkeypatch.setattr(texts, "_standard_library", lambda: found)
    train, test = texts.files(tmp_path, "code")
    sides = [[json.loads(line)["text"] for line in path.read_text().splitlines()] for path in (train, test)]
    assert sorted(sides[0] + sides[1]) == sorted(set(found) - {"short"})
    assert all(sides)
    assert all(map(texts.is_test, sides[1]))
    monkeypatch.setattr(texts, "_standard_library", list)
    assert texts.files(tmp_path, "code") == (train, test)  # not written again
    assert len(test.read_text().splitlines()) == len(sides[1])


def test_states_of_all_a_text_are_written_in_its_order(tmp_path):
    lines = (json.dumps({"text": f"Line {n}: {n} + {n} = {2 * n}.\n" * 40}) + "\n" for n in range(30))
    (tmp_path / "text.jsonl").write_text("".join(lines))
    data = {"use": "lm", "dataset": str(tmp_path / "text.jsonl"), "context": 32, "buffer_tokens": 256}
    part = harvest(tmp_path / "part.npy", data, rows=300, seed=0)
    whole = [
        harvest(tmp_path / f"{seed}.npy", data | {"held_out_share": share}, rows=300, seed=seed, whole=True)
        for seed, share in ((0, 0.5), (1, 0.6))
    ]
    rows = [np.load(path) for path in (part, *whole)]
    assert all(found.shape == (300, 256) for found in rows)
    assert np.array_equal(rows[1], rows[2])  # whatever the seed, and what a run would hold out
    assert not np.array_equal(rows[0], rows[1])


def test_other_vectors_to_measure_on_may_be_given(tmp_path):
    rows = np.random.default_rng(0).normal(size=(2000, 6)).astype(np.float32)
    np.save(tmp_path / "states.npy", rows)
    np.save(tmp_path / "test.npy", rows[:7])
    data = {"use": "tensors", "path": str(tmp_path / "states.npy"), "block_rows": 16}
    drawn = draw(data, tmp_path / "drawn", steps=9, batch_size=50, held_out=[tmp_path / "test.npy"], seed=3)
    assert (drawn.held_out, drawn.same_source) == (tmp_path / "test.npy", False)
    assert np.load(drawn.train).shape == (450, 6)
