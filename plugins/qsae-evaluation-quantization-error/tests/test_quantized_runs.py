"""Of a coder that ``qsae quantize`` made, the twin is the float coder that it was made from."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from click.testing import CliRunner

from qsae_cli.main import cli

TINY = ["--data", "synthetic", "--preset", "tiny", "--n-latents", "64", "--steps", "5", "--batch-size", "256"]


def qsae(*words: object) -> str:
    done = CliRunner().invoke(cli, list(map(str, words)), prog_name="qsae")
    assert done.exit_code == 0, done.output
    return done.stdout


def found(run: pathlib.Path) -> dict[str, Any]:
    said = qsae("evaluate", run, "--eval", "quantization-error", "--tokens", 2048, "--json")
    evaluations: dict[str, Any] = json.loads(said)["evaluations"]["quantization-error"]
    return evaluations


def test_the_source_is_the_twin_while_it_is_what_it_was(tmp_path: pathlib.Path) -> None:
    train = [
        "train",
        "--sae",
        "topk",
        *TINY,
        "--eval",
        "reconstruction",
        "--out",
        tmp_path,
        "--name",
        "float",
    ]
    qsae(*train)
    source = tmp_path / "float/synthetic/5"
    quantize = ["quantize", source, "--quantizer", "rtn", "--n-bits", 2, "--tokens", 1024, "--out", tmp_path]
    qsae(*quantize, "--name", "two")
    (run,) = (tmp_path / "two/synthetic").iterdir()
    values = found(run)
    assert values["encoder_cosine"] == pytest.approx(1)  # rounding is all there is, and of the decoder alone
    assert 0.5 < values["atom_cosine"] < 1
    qsae(*train, "--seed", 1, "--overwrite")
    assert found(run) == {"unavailable": "there is no full-precision twin beside the coder"}


def test_what_was_quantized_before_is_no_full_precision_twin(tmp_path: pathlib.Path) -> None:
    out = ["--out", tmp_path]
    train = ["train", "--sae", "topk", "--quantizer", "ste", *TINY, "--eval", "reconstruction", *out]
    qsae(*train, "--no-compare-float", "--save-float", "--name", "ste")
    quantize = ["quantize", tmp_path / "ste/synthetic/5", "--quantizer", "rtn", "--n-bits", 4, *out]
    qsae(*quantize, "--tokens", 1024, "--name", "four")
    (run,) = (tmp_path / "four/synthetic").iterdir()
    assert "unavailable" in found(run)
