"""The benchmark from a text to a trained SAE: what is timed, what a side leaves, and its page."""

from __future__ import annotations

import functools
import importlib
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import end_to_end, end_to_end_sides, results
from benchmarks.pages import end_to_end as page
from benchmarks.pages.page import without_folders
from benchmarks.peers.run_spec import Run
from benchmarks.scores import fvu
from benchmarks.settings import Settings

WORDS = ["class", "def", "for", "in", "import", "is", "list", "none", "not", "of", "return", "self", "while"]
ROOT = pathlib.Path(__file__).resolve().parents[1]
SIDE = """
import sys
sys.path.insert(0, {peers!r})
import time
import torch
from training import Trained
from whole_run import Side, main

def prepare(run):
    def train():
        time.sleep(0.2)
        torch.save(torch.eye(run.d) * 2, run.folder + "/saved.pt")
    return train

def load(run):
    time.sleep(0.5)
    W = torch.load(run.folder + "/saved.pt")
    return Trained(lambda x: (x @ W, torch.ones(len(x), run.n_latents)), W)

main(Side(prepare, load), "torch")
"""


@pytest.fixture
def probe(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["probe"])
    return importlib.import_module("benchmarks.end_to_end_probe")


def test_a_part_has_no_second_of_the_parts_in_it(probe, monkeypatch):
    """Outside 1 s; in ``train`` 2 + 7 s, in it ``read`` 3 s twice: 15 s in ``train`` and all in it."""
    clock = iter([0.0, 1.0, 3.0, 6.0, 6.0, 9.0, 16.0])
    monkeypatch.setattr(probe.time, "perf_counter", lambda: next(clock))
    parts = probe.Parts()
    with parts.part("train"):
        for _ in range(2):
            with parts.part("read"):
                pass
    assert parts.seconds == {"train": 9.0, "train/read": 6.0}


def test_a_function_that_raises_ends_its_part(probe, monkeypatch):
    parts = probe.Parts()
    monkeypatch.setattr(json, "loads", json.loads)  # puts it back
    parts.watch("json:loads", "parse")
    with pytest.raises(json.JSONDecodeError):
        json.loads("{")
    assert json.loads("[1]") == [1]
    assert list(parts.seconds) == ["parse"]


def test_the_watched_functions_are_there_and_have_a_row(probe):
    for place, _ in probe.PARTS:
        module, _, inner = place.partition(":")
        assert callable(functools.reduce(getattr, inner.split("."), importlib.import_module(module)))
    paths = ["start", "open", "harvest", "finish", "finish/evaluation", "training/measured", probe.ARTIFACT]
    paths += ["training/batches", "training/steps", "training/steps/loss", "training/steps/Adam"]
    paths += ["begin/language model", "harvest/language model", "finish/evaluation/language model"]
    rows = page.by_row({path: 2.0**i for i, path in enumerate(paths)})
    assert sum(rows.values()) == 2 ** len(paths) - 1
    assert rows["language model, for training"] == 2.0**11 + 2.0**12
    assert rows["Adam"] == 2.0**10
    with pytest.raises(ValueError, match="begin/other"):
        page.by_row({"begin/other": 1.0})


def test_a_peer_is_timed_until_its_coder_is_saved(tmp_path):
    """Loading what was saved takes half a second, which is nobody's; x_hat = 2 x."""
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "side.py").write_text(SIDE.format(peers=str(ROOT / "benchmarks" / "peers")))
    sizes = {"tokens": 8, "batch_size": 4, "n_latents": 6, "k": 2, "seed": 0, "threads": 1, "context": 4}
    spec = Run(
        out=str(tmp_path / "result.json"),
        started=time.time(),
        folder=str(tmp_path),
        model="",
        layer=3,
        text="",
        held_out=str(tmp_path / "x.npy"),
        options={},
        **sizes,
    )
    command = [sys.executable, str(tmp_path / "side.py"), json.dumps(spec._asdict())]
    subprocess.run(command, check=True)
    took = time.time() - spec.started
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["seconds"] == found["ready_seconds"] == pytest.approx(sum(found["stages"].values()))
    assert 0.2 <= list(found["stages"].values())[-1] < found["seconds"] < took - 0.5
    with np.load(tmp_path / "result.0.npz") as arrays:
        assert fvu(x, arrays["x_hat"]) == pytest.approx(float((x**2).sum() / ((x - x.mean(0)) ** 2).sum()))


def test_tokens_are_whole_batches_of_whole_contexts():
    for sizes in (end_to_end.SIZES, end_to_end.QUICK):
        assert sizes.batch_size % end_to_end_sides.CONTEXT == 0


def test_the_middle_of_five_layers_is_the_third(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 5}))
    assert end_to_end.middle(str(tmp_path)) == 2


def test_a_model_is_asked_for(tmp_path):
    settings = Settings(tmp_path, tmp_path, (), True, 0, 1, "c")
    with pytest.raises(SystemExit, match="needs --model DIR"):
        end_to_end.run(settings)


@pytest.mark.slow
def test_both_ways_of_qsae_and_their_page(tmp_path):
    """On the built-in model and a little text; the peers are not installed here, and their lines say so."""
    texts = tmp_path / "out" / "data" / "texts" / end_to_end.KIND
    texts.mkdir(parents=True)
    words = np.random.default_rng(0).choice(WORDS, size=(140, 400))
    for side, rows in (("train", words[:120]), ("test", words[120:])):
        (texts / f"{side}.jsonl").write_text("".join(json.dumps({"text": " ".join(r)}) + "\n" for r in rows))
    peers = ("sae-lens", "eai-sparsify")
    settings = Settings(tmp_path / "out", tmp_path, peers, True, 0, 1, "c", "builtin", 2, tokens=700)
    results.record(end_to_end_sides.NAME, end_to_end.run, settings)
    result = results.read(end_to_end_sides.NAME, settings)
    assert (result["tokens"], result["steps"]) == (1024, 2)
    straight, stored, *others = result["contenders"]
    for record in (straight, stored):
        assert 0 < record["ready_seconds"] < record["seconds"]
        parts = [seconds for command in record["parts"].values() for seconds in command.values()]
        assert sum(parts) == pytest.approx(record["seconds"])
        assert 0 < record["fvu"] < 1
    assert straight["commands"][0].startswith("qsae train --sae topk --model builtin --layer 2 --dataset ")
    assert [command.split()[1] for command in stored["commands"]] == ["cache", "train"]
    assert straight["parts"]["train"]["begin/language model"] > 0  # the one block that it needs
    assert "begin/language model" not in stored["parts"]["train"]
    assert stored["parts"]["cache"]["harvest/language model"] > 0
    assert {record["error"] for record in others} == {
        f"no environment {peer}: see benchmarks/README.md" for peer in peers
    }
    text = page.render(settings, tmp_path / "page.md").read_text()
    assert "| qsae, from a store |" in text
    assert "* sparsify, as it comes: failed: no environment eai-sparsify" in text
    assert "    qsae cache --model builtin" in text
    assert not (tmp_path / "out" / end_to_end_sides.NAME).exists()


def test_a_page_does_not_say_where_things_lie_on_the_machine_that_measured():
    line = "`qsae train --model /home/me/models/smollm2 --layer 9 --out results`: 3 / 4 of /tmp"
    assert without_folders(line) == "`qsae train --model smollm2 --layer 9 --out results`: 3 / 4 of /tmp"
