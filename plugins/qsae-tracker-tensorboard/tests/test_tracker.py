"""The tracker ``tensorboard``: its files as TensorBoard itself reads them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
from qsae_tracker_tensorboard import TensorboardConfig
from qsae_tracker_tensorboard.tracker import TensorboardTracker, final_values
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from qsae_core import Run
from qsae_core.errors import PluginError

TRAIN = """
train --sae ternary --data synthetic --preset tiny --n-latents 64 --steps 4 --batch-size 16 --log-every 2
--statistics-tokens 64 --eval-tokens 64 --eval-every 3 --threads 1 --name mine --tracker tensorboard
"""


@pytest.fixture
def run(tmp_path: pathlib.Path) -> Run:
    """One that has just begun."""
    found = Run(tmp_path / "mine" / "2" / "500")
    found.path.mkdir(parents=True)
    record = {
        "sae": {"use": "topk", "n_latents": 64, "expansion": None, "restart": True},
        "data": {"use": "lm", "layers": [1, 2]},
        "metrics": [{"use": "sparsity"}],
        "train": {"lr": "auto", "clip": 1.0},
        "status": "running",
    }
    found.config_file.write_text(json.dumps(record))
    return found


def track(run: Run, steps) -> None:
    tracker = TensorboardTracker(TensorboardConfig())
    tracker.start(run)
    for step, metrics in steps.items():
        tracker.log(step, metrics)
    tracker.finish()


def read(run: Run) -> EventAccumulator:
    events = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0})
    return events.Reload()


def curves(run: Run) -> dict[str, dict[int, float]]:
    events = read(run)
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_curves_have_the_steps_of_the_run_and_no_value_that_is_not_defined(run):
    track(run, {10: {"loss": 2.0, "dead": None}, 20: {"loss": 1.5, "loss/mse": 1.0, "dead": 0.5}})
    assert curves(run) == {"loss": {10: 2.0, 20: 1.5}, "loss/mse": {20: 1.0}, "dead": {20: 0.5}}


def test_held_out_metrics_are_curves_of_their_own(run):
    tracker = TensorboardTracker(TensorboardConfig())
    tracker.start(run)
    tracker.log(10, {"fvu": 0.5})
    tracker.measured(10, {"coder": {"fvu": 0.25, "l0": None}, "float_twin": {"fvu": 0.125}})
    tracker.finish()
    expected = {"fvu": {10: 0.5}, "held_out/fvu": {10: 0.25}, "held_out/float_twin/fvu": {10: 0.125}}
    assert curves(run) == expected


def test_what_the_run_came_to_is_at_its_last_step(run):
    evaluations = {"reconstruction": {"fvu": 0.25, "l0": None}, "loss": {"unavailable": "no model"}}
    entry = {"evaluations": evaluations}
    run.metrics_file.write_text(json.dumps({"steps": 500, "coders": {"coder": entry, "float_twin": entry}}))
    track(run, {499: {"loss": 1.0}})
    assert curves(run) == {
        "loss": {499: 1.0},
        "final/reconstruction/fvu": {500: 0.25},
        "final/float_twin/reconstruction/fvu": {500: 0.25},
    }


def test_values_of_coders_of_single_layers():
    of_layer = {"evaluations": {"reconstruction": {"fvu": 0.5}}}
    entry = {"evaluations": {"reconstruction": {"fvu": 0.25}}, "layers": {"3": of_layer}}
    assert dict(final_values(entry, "final")) == {
        "final/reconstruction/fvu": 0.25,
        "final/layer/3/reconstruction/fvu": 0.5,
    }


def test_steps_after_the_one_that_is_resumed_do_not_count_any_more(run):
    track(run, {5: {"loss": 5.0}, 10: {"loss": 4.0}, 15: {"loss": 3.0}})  # and is killed before step 20
    state = run.checkpoints / "step_00000012" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"step": 12}))
    track(run, {16: {"loss": 2.5}, 20: {"loss": 2.0}})
    assert curves(run) == {"loss": {5: 5.0, 10: 4.0, 16: 2.5, 20: 2.0}}


def test_the_configuration_is_there_as_text_and_options_as_hyperparameters(run):
    track(run, {})
    events = read(run)
    (text,) = events.Tensors("config/text_summary")
    shown = text.tensor_proto.string_val[0].decode().removeprefix("```json\n").removesuffix("\n```")
    record = run.record()
    del record["status"]
    assert json.loads(shown) == record
    data = HParamsPluginData.FromString(events.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    options = {name: value for name, value in data.session_start_info.hparams.items()}
    assert options.keys() == {"sae.use", "sae.n_latents", "sae.restart", "data.use", "train.lr", "train.clip"}
    assert options["sae.n_latents"].number_value == 64
    assert options["sae.restart"].bool_value is True
    assert options["train.lr"].string_value == "auto"


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # importing it is an error
    with pytest.raises(PluginError) as caught:
        TensorboardTracker(TensorboardConfig())
    assert "tensorboardX cannot be imported" in caught.value.what
    assert caught.value.next == "pip install 'tensorboardX>=2.6.2.2'"


def test_a_real_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from qsae_cli.main import main; main()", *TRAIN.split()],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    run = Run(tmp_path / "results" / "mine" / "synthetic" / "4")
    found = curves(run)
    log = [json.loads(line) for line in (run.path / "metrics" / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "fvu", "float_twin/loss"):
        assert found[name] == pytest.approx({line["step"]: line[name] for line in log}, rel=1e-6), name
    held_out = json.loads((run.path / "metrics" / "step_00000003.json").read_text())
    assert found["held_out/fvu"] == pytest.approx({3: held_out["coder"]["fvu"]}, rel=1e-6)
    entries = json.loads(run.metrics_file.read_text())["coders"]
    fvu = entries["float_twin"]["evaluations"]["reconstruction"]["fvu"]
    assert found["final/float_twin/reconstruction/fvu"] == pytest.approx({4: fvu}, rel=1e-6)
