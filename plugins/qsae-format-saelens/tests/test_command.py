"""The README's worked example: out of a run, into another folder, and out again."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from qsae_cli.main import cli

TRAIN = (
    "train --sae topk --k 16 --n-latents 256 --steps 4 --batch-size 128 --eval-tokens 512 --eval-every 0 "
    "--statistics-tokens 256 --threads 1 --no-compare-float --eval reconstruction --name mine"
)


def qsae(line):
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.stdout


def fvu(path):
    line = f"evaluate {path} --eval reconstruction --tokens 2048 --json"
    return json.loads(qsae(line))["evaluations"]["reconstruction"]["fvu"]


def test_the_worked_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    qsae(TRAIN)
    qsae("export results/mine/2/4 --format saelens --out mine_saelens")
    qsae("import mine_saelens --out mine_again")
    assert fvu("mine_again") == pytest.approx(fvu("results/mine/2/4"), rel=1e-4)
    qsae("export mine_again --format saelens --out mine_once_more")
    for name in ("cfg.json", "sae_weights.safetensors"):
        once_more = (tmp_path / "mine_once_more" / name).read_bytes()
        assert (tmp_path / "mine_saelens" / name).read_bytes() == once_more
