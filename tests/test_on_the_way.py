"""Evaluations while a coder is trained: when, of what, and that training knows nothing of it."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys

import pytest
import torch
from click.testing import CliRunner
from qsae_samples.firings import Firings
from qsae_samples.samples import Samples
from safetensors.torch import load_file

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from together import alone, assert_alike, carry_out, tree

from qsae_cli.main import cli
from qsae_core.config.layers import checked_layer
from qsae_core.config.run import resolve
from qsae_core.config.settings import TrainConfig
from qsae_core.contracts import Observation
from qsae_core.errors import ConfigError, DataError
from qsae_core.evaluation.stored import load_results
from qsae_core.plugins.records import load_plugins
from qsae_core.results.run import Run
from qsae_core.training.loop import TrainingLoop
from qsae_core.training.parts import check_cadences

FEW = "--n-latents 64 --k 4 --steps 8 --batch-size 128 --eval-tokens 256 --eval-every 0 --threads 1"
TEXT = "--data lm --model builtin --context 32 --buffer-tokens 512 --statistics-tokens 256"
STE = "--sae topk --quantizer ste --eval gradients --eval.gradients.directions 1 --eval.gradients.batch 64"
SMALL, DATA = FEW.split(), [*TEXT.split(), "--layer", "1"]


def qsae(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


def train(folder: pathlib.Path, *arguments: object) -> tuple[Run, str]:
    where = ["--out", folder, "--name", "it"]
    out = qsae("train", *SMALL, *arguments, *where)
    (config,) = folder.rglob("config.json")
    return Run(config.parent), out


def steps_of(run: Run) -> list[str]:
    return sorted(path.name for path in run.evaluations.glob("step_*"))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_training_goes_on_bit_for_bit(tmp_path, prefetch):
    few = ["--sae", "topk", *DATA, "--prefetch", prefetch, "--eval", "samples"]
    alone, _ = train(tmp_path / "alone", *few)
    beside, out = train(tmp_path / "beside", *few, "--samples-every", 4)
    tensors = [load_file(run.final / "coder.safetensors") for run in (alone, beside)]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in {*tensors[0], *tensors[1]})
    logs = [(run.path / "metrics" / "log.jsonl").read_text().splitlines() for run in (alone, beside)]
    losses = [[json.loads(line)["loss"] for line in log] for log in logs]
    assert losses[0] == losses[1]
    # not behind the last step, whose coder is evaluated as it was stored
    assert (steps_of(alone), steps_of(beside)) == ([], ["step_00000004"])
    assert "step 4: samples (" in out
    assert f"in {beside.evaluations_at(4)}" in out


def test_what_is_stored(tmp_path):
    run, _ = train(tmp_path, "--sae", "topk", *DATA, "--eval", "samples", "--samples-every", 3)
    assert steps_of(run) == ["step_00000003", "step_00000006"]
    record = json.loads((run.evaluations_at(3) / "samples" / "result.json").read_text())
    assert (record["evaluation"], record["coder"], record["step"]) == ("samples", "step 3", 3)
    assert record["options"]["every"] == 3
    assert "held-out" in record["measured"]["what"]
    # 3 steps of 128 vectors; a fortieth is less than a batch
    assert record["n_tokens"] == 128
    there = [Samples.load(run.evaluations_at(step)) for step in (3, 6)]
    assert all(samples.n_tokens + samples.about["n_skipped"] in range(128, 160) for samples in there)
    assert not (there[0].arrays["count"] == there[1].arrays["count"]).all()
    assert list(load_results(run.evaluations)) == ["samples"]
    assert list(load_results(run.evaluations_at(6))) == ["samples"]
    # a run is one run to other commands
    assert qsae("runs", "--out", tmp_path).count("it/1/8") == 1
    qsae("evaluate", run.path, "--eval", "reconstruction", "--tokens", 128)
    assert Samples.load(run.path).n_latents == 64


def test_a_run_that_was_interrupted_goes_on_and_is_compared(tmp_path, monkeypatch):
    few = ["--sae", "topk", *DATA, "--eval", "samples", "--eval", "reconstruction", "--samples-every", 3]
    whole, _ = train(tmp_path / "whole", *few)
    log = TrainingLoop._log

    def interrupted(self: TrainingLoop, step: int, speed: float) -> None:
        log(self, step, speed)
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingLoop, "_log", interrupted)
        qsae("train", *SMALL, *few, "--out", tmp_path / "part", "--name", "it", code=2)
    part = Run(tmp_path / "part" / whole.path.relative_to(tmp_path / "whole"))
    assert steps_of(part) == ["step_00000003"]
    before = Samples.load(part.evaluations_at(3)).arrays["count"]
    qsae("train", "--config", part.config_file, "--resume")
    assert steps_of(part) == ["step_00000003", "step_00000006"]
    assert (Samples.load(part.evaluations_at(3)).arrays["count"] == before).all()
    for step in (3, 6):
        counts = [Samples.load(run.evaluations_at(step)).arrays["count"] for run in (whole, part)]
        assert (counts[0] == counts[1]).all()
    assert "is left out" in qsae("compare", whole.path, part.path)  # it came to the same coder


def test_tokens_of_each():
    settings = TrainConfig(steps=100, batch_size=100, eval_tokens=500)
    assert [settings.tokens_after(every) for every in (1, 40, 80, 120, 1000)] == [100, 100, 200, 300, 500]


def test_gradients_of_the_coder_that_trains_need_no_masters(tmp_path):
    run, out = train(tmp_path, *STE.split(), *DATA, "--gradients-every", 4, "--no-compare-float")
    (result,) = load_results(run.evaluations_at(4)).values()
    assert result.values["grad_norm"] > 0
    assert result.values["saturated_share"] > 0
    assert not load_results(run.evaluations)  # the artifact has none
    assert "masters" in out


def test_a_coder_for_each_layer(tmp_path):
    layers = [*TEXT.split(), "--layers", "1,2", "--per-layer"]
    run, out = train(tmp_path, "--sae", "topk", *layers, "--eval", "samples", "--samples-every", 4)
    for layer in ("1", "2"):
        assert Samples.load(run.evaluations_at(4) / "layers" / layer).n_tokens > 0
    assert "step 4: samples (" in out


def test_what_cannot_be_measured_is_said_once(tmp_path):
    file = tmp_path / "x.pt"
    torch.save(torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)), file)
    run, out = train(
        tmp_path / "out", "--sae", "topk", "--data-path", file, "--eval", "samples", "--samples-every", 2
    )
    assert out.count("samples is not measured: the data source has no language model") == 1
    assert steps_of(run) == []
    assert run.finished


def test_a_failure_does_not_end_the_run(tmp_path, monkeypatch):
    update = Firings.update

    def fails(self: Firings, observation: Observation) -> None:
        if self.context.n_tokens < 256:  # as many are read at the end
            raise DataError("the disk is gone")
        update(self, observation)

    monkeypatch.setattr(Firings, "update", fails)
    run, out = train(tmp_path, "--sae", "topk", *DATA, "--eval", "samples", "--samples-every", 3)
    for step in (3, 6):
        assert f"warning: step {step}: samples is not measured: the disk is gone" in out
    assert run.finished
    assert list(load_results(run.evaluations)) == ["samples"]


def test_options_that_make_no_sense_do_not_end_the_run(tmp_path, monkeypatch):
    def refuses(self: Firings, *_: object) -> None:
        raise ConfigError("it makes no sense", where="here")

    monkeypatch.setattr(Firings, "__init__", refuses)
    where = ["--out", tmp_path, "--name", "it"]
    out = qsae(
        "train", *SMALL, "--sae", "topk", *DATA, "--eval", "samples", "--samples-every", 4, *where, code=2
    )
    assert "warning: samples not measured at step 4: here: it makes no sense" in out
    assert list(tmp_path.rglob("step_00000008"))  # its end evaluates again, and says so there


def test_what_takes_long_is_remarked_upon(tmp_path):
    _, out = train(tmp_path, "--sae", "topk", *DATA, "--eval", "samples", "--samples-every", 1)
    assert out.count("as long as training so far; a larger --samples-every makes that less") == 1


def test_a_divided_dictionary():
    tree = {
        "sae": {"use": "topk"},
        "data": {"use": "lm", "model": "builtin"},
        "evaluate": [{"use": "samples", "every": 5}],
        "train": {"latent_parallel": 2},
    }
    registry = load_plugins().registry
    with pytest.raises(ConfigError, match="'samples' cannot run while each process") as error:
        check_cadences(resolve([checked_layer(tree, "test")], registry))
    assert (error.value.where, error.value.next) == ("evaluate.samples.every", "leave --samples-every out")
    tree["train"] = {"latent_parallel": 1}
    check_cadences(resolve([checked_layer(tree, "test")], registry))


def test_an_evaluation_of_trained_coders_alone_has_no_such_flag(tmp_path):
    out = qsae("train", *SMALL, "--sae", "topk", *DATA, "--reconstruction-every", 4, code=2)
    assert "unknown flag --reconstruction-every" in out
    out = qsae("train", *SMALL, "--sae", "topk", *DATA, "--samples-every", 4, code=2)
    assert "--samples-every belongs to evaluation 'samples'; add --eval samples" in out


@pytest.mark.slow
def test_of_several_processes_the_first_one_evaluates(tmp_path):
    few = {"sae": {"use": "topk", "n_latents": 64}, "sparsity": {"use": "topk", "k": 6}}
    few |= {"quantizer": {"use": "ste"}}
    often = [{"use": "gradients", "every": 6, "directions": 1, "batch": 48}]
    single = alone(tree(tmp_path / "one", "it", **few))
    for outcomes in carry_out(2, tmp_path, [{"tree": tree(tmp_path / "two", "it", **few, evaluate=often)}]):
        assert [outcome["error"] for outcome in outcomes] == [None]
    run = Run(tmp_path / "two" / single.path.relative_to(tmp_path / "one"))
    assert_alike(run, single)
    assert steps_of(run) == ["step_00000006", "step_00000012"]
