"""Fine-tuning after quantization is kept where the loss of the calibration vectors falls, not elsewhere."""

from __future__ import annotations

import json
import pathlib
import re
import shlex

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import qsae_core
from qsae_cli.main import cli
from qsae_core.quantization import finetuning
from qsae_core.quantization.finetuning import LOWER, TRIES, automatic_rate
from qsae_core.training.trainer import auto_learning_rate

F = 64
SMALL = "--batch-size 128 --statistics-tokens 1024 --eval-every 0 --threads 1 --eval reconstruction"
NUMBER = r"\b[0-9.]+(?:e[-+][0-9]+)?"
ROUNDED = "quantize --quantizer rtn --n-bits 3 --tokens 2048 --json --out"


def qsae(line: str, *paths: object) -> tuple[dict, str]:
    result = CliRunner().invoke(cli, [*shlex.split(line), *map(str, paths)], prog_name="qsae")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def fvu(summary: dict) -> float:
    return summary["coders"]["coder"]["evaluations"]["reconstruction"]["fvu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> pathlib.Path:
    """A transcoder with a skip connection: 16 dimensions to 12, partly linear; no vector is read twice."""
    rng = np.random.default_rng(0)
    f = rng.random((24000, 48)) * (rng.random((24000, 48)) < 0.08)
    x = f @ rng.normal(size=(48, 16)) + 3
    y = 5 * f @ rng.normal(size=(48, 12)) + x @ rng.normal(size=(16, 12)) - 40
    folder = tmp_path_factory.mktemp("pairs")
    for name, vectors in (("x", x), ("y", y)):
        np.save(folder / f"{name}.npy", vectors.astype(np.float32))
    data = f"--data tensors --data-path {folder / 'x.npy'} --target-path {folder / 'y.npy'}"
    line = f"train --transcoder transcoder --skip --n-latents {F} --k 8 {data} {SMALL} --steps 150 --lr 0.01"
    return pathlib.Path(qsae(f"{line} --json --out", folder)[0]["path"])


@pytest.fixture(scope="module")
def rounded(trained, tmp_path_factory) -> dict:
    return qsae(ROUNDED, tmp_path_factory.mktemp("rounded"), trained)[0]


def test_rates_of_short_ones_are_lower():
    """A quarter of training's from 150 steps on; the root of a quarter of that for a quarter of the steps."""
    assert automatic_rate(F, 150) == auto_learning_rate(F, 150) / 4
    assert automatic_rate(F, 2000) == auto_learning_rate(F, 2000) / 4
    assert automatic_rate(F, 15) == pytest.approx(auto_learning_rate(F, 15) / 4 * 0.1**0.5)


@pytest.mark.parametrize("steps", [5, 20, 150])
def test_however_short_it_is_it_does_not_cost(trained, rounded, tmp_path, steps):
    tuned, said = qsae(f"{ROUNDED} {tmp_path} --finetune encoder --finetune-steps {steps}", trained)
    assert "the calibration loss becomes" not in said
    assert tuned["quantized_from"]["finetuning_rates"] == [[automatic_rate(F, steps)]]
    assert fvu(tuned) < fvu(rounded)


def test_a_rate_that_raises_the_loss_is_lowered_as_long_as_that_is_better(
    trained, rounded, tmp_path, monkeypatch
):
    """From 16 times the usual rate: that does harm, a quarter of it gives little, the usual one more, and a
    quarter of the usual one less again."""
    at_once, _ = qsae(f"{ROUNDED} {tmp_path / 'once'} --finetune encoder", trained)
    monkeypatch.setattr(finetuning, "SHARE", 0.25 * LOWER**2)
    tuned, said = qsae(f"{ROUNDED} {tmp_path} --finetune encoder", trained)
    lines = [line for line in said.splitlines() if "the calibration loss becomes" in line]
    rates, after, before = zip(*(map(float, re.findall(NUMBER, line)) for line in lines), strict=True)
    usual = auto_learning_rate(F, 150) / 4
    assert tuned["quantized_from"]["finetuning_rates"] == [[usual]]
    assert rates == pytest.approx([16 * usual, usual / 4], rel=0.05)  # two digits
    assert after[0] > before[0] > after[1] >= before[1]
    assert fvu(tuned) == fvu(at_once) < fvu(rounded)


@pytest.mark.parametrize(("share", "given"), [(1e6, ""), (0.25, "--lr 3")])
def test_where_none_helps_the_coder_stays(trained, rounded, tmp_path, monkeypatch, share, given):
    """Every parameter, not the loss alone; a rate that was given is not replaced by another."""
    monkeypatch.setattr(finetuning, "SHARE", share)
    line = f"{ROUNDED} {tmp_path} --finetune encoder --finetune-steps 10 {given}"
    tuned, said = qsae(line, trained)
    assert said.count("the calibration loss becomes") == (1 if given else TRIES)
    assert "the encoder stays as it was" in said
    assert ("a lower --lr may help" in said) is bool(given)
    assert tuned["quantized_from"]["finetuning_rates"] == [[None]]
    one, other = (qsae_core.load(made["path"]).export().tensors for made in (rounded, tuned))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert fvu(tuned) == fvu(rounded)
