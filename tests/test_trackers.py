"""What a tracker is told of a run: steps, held-out metrics, and its end, whichever that is."""

from __future__ import annotations

import numpy as np
import pytest

from qsae_core.component import ComponentConfig
from qsae_core.config.layers import checked_layer
from qsae_core.config.run import resolve
from qsae_core.contracts import Tracker
from qsae_core.plugins.records import load_plugins
from qsae_core.results.files import read_json
from qsae_core.training import chronicle
from qsae_core.training.run import train
from qsae_core.training.trainer import Trainer
from qsae_core.training.watcher import Unwatched


class Notes(Tracker):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__(ComponentConfig())
        self.told, self.values = [], {}

    def start(self, run):
        self.run = run
        self.told.append("start")

    def log(self, step, metrics):
        self.told.append(f"log {step}")

    def measured(self, step, metrics):
        self.told.append(f"measured {step}")
        self.values[step] = metrics

    def finish(self):
        ended = " with metrics.json" if self.run.metrics_file.exists() else ""
        self.told.append(f"finish: {self.run.record()['status']}{ended}")


@pytest.fixture
def notes(monkeypatch):
    tracker = Notes()
    monkeypatch.setattr(chronicle, "compose_trackers", lambda config, registry: {"notes": tracker})
    return tracker


@pytest.fixture
def config(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(512, 8)).astype(np.float32))
    tree = {
        "sae": {"use": "topk", "n_latents": 16},
        "sparsity": {"use": "topk", "k": 2},
        "data": {"use": "tensors", "path": str(tmp_path / "x.npy")},
        "train": {"steps": 6, "batch_size": 16, "statistics_tokens": 64, "eval_tokens": 16}
        | {"log_every": 2, "eval_every": 3},
        "run": {"out": str(tmp_path / "results"), "device": "cpu", "threads": 1},
        "metrics": ["reconstruction"],
        "evaluate": ["reconstruction"],
    }
    return resolve([checked_layer(tree, "test")], load_plugins().registry)


def test_of_a_run_that_comes_to_its_end(notes, config):
    run = train(config, load_plugins(), Unwatched())
    end = "finish: finished with metrics.json"
    assert notes.told == ["start", "log 2", "measured 3", "log 4", "log 6", end]
    assert notes.values == {3: read_json(run.path / "metrics" / "step_00000003.json")}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("broken"), "failed: RuntimeError: broken"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_of_a_run_that_breaks_off(notes, config, monkeypatch, error, status):
    step = Trainer.step

    def breaks(trainer, batch, number):
        if number == 4:
            raise error
        step(trainer, batch, number)

    monkeypatch.setattr(Trainer, "step", breaks)
    with pytest.raises(type(error)):
        train(config, load_plugins(), Unwatched())
    assert notes.told == ["start", "log 2", "measured 3", "log 4", f"finish: {status}"]


def test_the_error_that_ended_the_run_is_shown_not_that_of_a_tracker(notes, config, monkeypatch):
    def fails(*_):
        raise RuntimeError("the server is gone")

    def stops(*_):
        raise RuntimeError("of the run")

    monkeypatch.setattr(notes, "finish", fails)
    monkeypatch.setattr(Trainer, "step", stops)
    with pytest.raises(RuntimeError, match="of the run"):
        train(config, load_plugins(), Unwatched())


def test_a_tracker_that_was_not_begun_is_not_finished(notes, config, monkeypatch):
    def fails(run):
        raise RuntimeError("no such project")

    monkeypatch.setattr(notes, "start", fails)
    with pytest.raises(RuntimeError, match="no such project"):
        train(config, load_plugins(), Unwatched())
    assert notes.told == []
