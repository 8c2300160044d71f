"""The tracker ``wandb``: what its files hold."""

from __future__ import annotations

import json
import sys
import time

import pytest
from qsae_tracker_wandb import WandbConfig
from qsae_tracker_wandb.tracker import WandbTracker, final_values

from qsae_core.errors import ConfigError, PluginError


def track(run, steps, **options):
    tracker = WandbTracker(WandbConfig(**options))
    tracker.start(run)
    for step, metrics in steps.items():
        tracker.log(step, metrics)
    tracker.finish()


def test_steps_configuration_and_what_the_run_came_to(run, written):
    entry = {
        "evaluations": {"reconstruction": {"fvu": 0.25, "l0": None}, "loss": {"unavailable": "no model"}}
    }
    run.metrics_file.write_text(json.dumps({"coders": {"coder": entry, "float_twin": entry}}))
    track(run, {10: {"loss": 2.0, "dead": None}, 20: {"loss": 1.5, "loss/mse": 1.0, "dead": 0.5}})
    (theirs,) = written(run)
    assert theirs.steps == {10: {"loss": 2.0}, 20: {"loss": 1.5, "loss/mse": 1.0, "dead": 0.5}}
    assert theirs.summary["final/reconstruction/fvu"] == 0.25
    assert theirs.summary["final/float_twin/reconstruction/fvu"] == 0.25
    assert not {name for name in theirs.summary if "l0" in name or "unavailable" in name}
    assert {key: theirs.config[key] for key in ("sae", "trackers")} == {
        "sae": {"use": "topk", "k": 8},
        "trackers": [{"use": "wandb"}],
    }
    assert "started_at" not in theirs.config
    assert (theirs.about.project, theirs.about.display_name) == ("qsae", "mine/2/500")
    assert theirs.exit_code == 0


def test_held_out_metrics_stand_beside_the_steps_numbers(run, written):
    tracker = WandbTracker(WandbConfig())
    tracker.start(run)
    tracker.log(10, {"fvu": 0.5})
    tracker.measured(10, {"coder": {"fvu": 0.4, "l0": None}, "float_twin": {"fvu": 0.3}})
    tracker.measured(15, {"coder": {"fvu": 0.2}})
    tracker.log(20, {"fvu": 0.1})
    tracker.finish()
    (theirs,) = written(run)
    assert theirs.steps == {
        10: {"fvu": 0.5, "held_out/fvu": 0.4, "held_out/float_twin/fvu": 0.3},
        15: {"held_out/fvu": 0.2},
        20: {"fvu": 0.1},
    }


def test_a_run_that_broke_off_is_shown_as_failed(run, written):
    tracker = WandbTracker(WandbConfig())
    tracker.start(run)
    run.update_record(status="interrupted")
    tracker.finish()
    assert written(run)[0].exit_code == 1


def test_its_options(run, written):
    track(run, {}, project="p", entity="e", name="n", group="g", tags=["a", "b"])
    about = written(run)[0].about
    assert (about.project, about.entity, about.display_name, about.run_group) == ("p", "e", "n", "g")
    assert list(about.tags) == ["a", "b"]


def test_a_run_that_is_taken_up_again_goes_on_under_its_id(run, written):
    track(run, {1: {"loss": 2.0}})
    time.sleep(1.1)  # wandb's folders are told apart by the second
    track(run, {2: {"loss": 1.0}})
    first, second = written(run)
    assert first.about.run_id == second.about.run_id
    assert [list(theirs.steps) for theirs in (first, second)] == [[1], [2]]


def test_a_run_that_is_begun_anew_has_an_id_of_its_own(run, written):
    track(run, {})
    (run.path / "wandb" / "run-id.txt").unlink()  # --overwrite removes the whole folder
    time.sleep(1.1)
    track(run, {})
    first, second = written(run)
    assert first.about.run_id != second.about.run_id


def test_values_of_coders_of_single_layers():
    of_layer = {"evaluations": {"reconstruction": {"fvu": 0.5}}}
    entry = {"evaluations": {"reconstruction": {"fvu": 0.25}}, "layers": {"3": of_layer}}
    assert dict(final_values(entry, "final")) == {
        "final/reconstruction/fvu": 0.25,
        "final/layer/3/reconstruction/fvu": 0.5,
    }


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it is an error
    with pytest.raises(PluginError) as caught:
        WandbTracker(WandbConfig())
    assert "wandb cannot be imported" in caught.value.what
    assert caught.value.next == "pip install 'wandb>=0.31'"


def test_online_without_a_key_is_refused_before_the_run_begins(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for home in ("HOME", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(home, str(tmp_path / "nothing"))
    with pytest.raises(ConfigError) as caught:
        WandbTracker(WandbConfig(mode="online"))
    assert (caught.value.where, caught.value.next) == ("mode", "wandb login")
    assert "WANDB_API_KEY" in caught.value.allowed


def test_a_server_that_refuses_is_an_error_that_says_how_to_go_on(run, monkeypatch):
    import wandb

    def refuse(**_):
        raise wandb.errors.CommError("no such project")

    monkeypatch.setattr(wandb, "init", refuse)
    tracker = WandbTracker(WandbConfig())
    with pytest.raises(ConfigError, match="no such project") as caught:
        tracker.start(run)
    assert "wandb sync" in caught.value.next
