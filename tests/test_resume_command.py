"""``qsae train --resume RUN``, and what training says of its numbers on the way."""

from __future__ import annotations

import os
import pathlib
import shlex
import signal

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from qsae_cli.main import cli
from qsae_core.training.loop import TrainingLoop

TRAIN = shlex.split(
    "train --sae topk --n-latents 32 --k 4 --data synthetic --preset tiny --quantizer ste "
    "--quantizer.n-bits 4 --steps 8 --batch-size 128 --eval-tokens 512 --statistics-tokens 512 --threads 1 "
    "--log-every 1 --eval-every 2 --eval reconstruction --device cpu --name it"
)


def qsae(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="qsae")
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """A run that was interrupted after its fourth step."""
    log = TrainingLoop._log

    def interrupted(self: TrainingLoop, step: int, speed: float) -> None:
        log(self, step, speed)
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TrainingLoop, "_log", interrupted)
    said = qsae(*TRAIN, "--out", tmp_path / "cut", code=2).stderr
    monkeypatch.setattr(TrainingLoop, "_log", log)
    (config,) = (tmp_path / "cut").glob("it/*/*/config.json")
    assert f"--config {config} --resume" in said
    return config.parent


def tensors(run: pathlib.Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "final" / "coder.safetensors")


@pytest.mark.parametrize("moved", [False, True])
def test_a_run_is_resumed_by_its_folder_alone(cut, tmp_path, monkeypatch, moved):
    """Bit for bit what it would have been; from wherever it lies now."""
    qsae(*TRAIN, "--out", tmp_path / "whole")
    (whole,) = [config.parent for config in (tmp_path / "whole").glob("it/*/*/config.json")]
    run = cut
    if moved:
        (tmp_path / "cut").rename(tmp_path / "moved")
        run = pathlib.Path(*(part if part != "cut" else "moved" for part in cut.parts))
        monkeypatch.chdir(run.parent)
        run = pathlib.Path(run.name)
    said = qsae("train", "--resume", run).stderr
    assert "resuming after step 4" in said
    one, other = tensors(run), tensors(whole)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert "this run is finished" in qsae("train", "--resume", run, code=2).stderr


def test_a_run_that_is_not_there_or_not_to_be_resumed(cut, tmp_path):
    missing = qsae("train", "--resume", tmp_path / "none", code=2).stderr
    assert f"{tmp_path / 'none'}: it is no run: it has no config.json" in missing
    assert "qsae runs" in missing
    unsaid = qsae("train", cut, code=2).stderr
    assert (
        f"next:    qsae train --resume {cut}; to repeat it: qsae train --config {cut}/config.json" in unsaid
    )
    changed = qsae("train", "--resume", cut, "--lr", "0.5", code=2).stderr
    assert "train.lr (auto, now 0.5)" in changed


def test_each_number_says_of_what_it_is(tmp_path):
    """Half of the steps are made with float weights; held out it is measured quantized all the time."""
    said = qsae(*TRAIN, "--quantize-after", 0.5, "--out", tmp_path).stderr.splitlines()
    assert any("weights pass the quantizers from step 5 on" in line for line in said)
    steps = {line.split("/")[0]: line for line in said if line.startswith("step ") and "/8  " in line}
    assert [("fvu before quantization" in line) for line in steps.values()] == [True] * 4 + [False] * 4
    measured = [line for line in said if ": held out" in line]
    assert all(": held out, quantized: fvu" in line for line in measured)
    assert all("; held out, float twin: fvu" in line for line in measured)
    assert [line.split(":")[0] for line in measured] == ["step 2", "step 4", "step 6"]
    last = steps["step 8"]
    assert "trained in" in last
    assert "what follows is the evaluation" in last
    assert "s left" not in last
    after = said[said.index(last) + 1 :]
    passes = [line for line in after if "pass 1, for" in line]
    assert passes == ["pass 1, for reconstruction", "float twin: pass 1, for reconstruction"]
    assert any(
        line.startswith("evaluating ") and line.endswith(" on 512 held-out vectors: reconstruction")
        for line in after
    )


def test_a_coder_without_quantizer_is_not_said_to_be_quantized(tmp_path):
    line = shlex.join(TRAIN).replace("--quantizer ste --quantizer.n-bits 4 ", "")
    said = qsae(*shlex.split(line), "--out", tmp_path).stderr
    assert ": held out: fvu" in said
    assert not [w for w in ("held out, quantized", "before quantization", "weights pass") if w in said]
