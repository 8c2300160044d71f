"""Every quantizer with every transcoder: after training by ``qsae quantize``, and in training."""

from __future__ import annotations

import json
import pathlib
import shlex

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import qsae_core
from qsae_cli.main import cli
from qsae_core.plugins.records import load_plugins

REGISTRY = load_plugins().registry
QUANTIZERS = REGISTRY.names("quantizer")
TRANSCODERS = {
    "transcoder": "--n-latents 64 --k 8",
    "matryoshka-transcoder": "--n-latents 128 --sparsity batchtopk --k 8",
    "cross-layer-transcoder": "--n-latents 96 --k 8 --middle layers",
}
SMALL = (
    "--skip --batch-size 128 --statistics-tokens 512 --eval-every 0 --eval-tokens 512 --threads 1 "
    "--eval reconstruction --lr 0.01"
)
MOST_BITS = 10.5
FLOATS = {"none": 32, "half": 16}
"""A grid has at most 8 bits a weight, and rows of 12 to 24 weights a scale or two of 16."""
OPTIONS = {"vector": "codebook-bits 4"}
"""The usual codebook of 256 vectors would be larger than these matrices."""


def test_they_are_all_here():
    assert set(TRANSCODERS) == set(REGISTRY.names("transcoder"))
    assert len(QUANTIZERS) == 15


def chosen(slot: str, name: str) -> str:
    """The flags of a quantizer."""
    return f"--{slot} {name}" + (f" --{slot}.{OPTIONS[name]}" if name in OPTIONS else "")


def qsae(line: str, *paths: object) -> dict:
    result = CliRunner().invoke(cli, [*shlex.split(line), *map(str, paths), "--json"], prog_name="qsae")
    assert result.exit_code == 0, result.output
    assert "not rotated" not in result.output
    return json.loads(result.stdout)


def fvu(summary: dict) -> float:
    return summary["coders"]["coder"]["evaluations"]["reconstruction"]["fvu"]


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> dict[str, str]:
    """Transcoder -> the line that trains it: on 16 dimensions to 12, or two layers of these."""
    rng = np.random.default_rng(0)
    f = rng.random((3000, 48)) * (rng.random((3000, 48)) < 0.08)
    x = f @ rng.normal(size=(48, 16)) + 3
    y = 5 * f @ rng.normal(size=(48, 12)) + x @ rng.normal(size=(16, 12)) - 40
    folder = tmp_path_factory.mktemp("pairs")
    lines = {}
    for name, options in TRANSCODERS.items():
        files = []
        for side, vectors in (("x", x), ("y", y)):
            if "layers" in options:
                vectors = np.stack([vectors, vectors[:, ::-1]], axis=1)
            files.append(folder / f"{name}-{side}.npy")
            np.save(files[-1], vectors.astype(np.float32))
        data = f"--data tensors --data-path {files[0]} --target-path {files[1]}"
        lines[name] = f"train --transcoder {name} {options} {data} {SMALL}"
    return lines


@pytest.fixture(scope="module")
def trained(training, tmp_path_factory) -> dict[str, dict]:
    """Transcoder -> what training it in float32 came to."""
    out = tmp_path_factory.mktemp("float")
    return {name: qsae(f"{line} --steps 120 --out", out) for name, line in training.items()}


def expect_stored_as_it_computes(made: dict, name: str) -> None:
    """Its matrices take the bits that they should, and what is loaded computes what was measured."""
    bits = made["coders"]["coder"]["artifact"]["bits_per_weight"]
    coder = qsae_core.load(pathlib.Path(made["path"]))
    for matrix in coder.decoders():
        assert bits[matrix] == FLOATS[name] if name in FLOATS else bits[matrix] < MOST_BITS
    several = (2,) if coder.reads_layers else ()
    x = torch.randn(5, *several, coder.shape.d_in) + 3
    assert torch.equal(coder.decode(coder.encode(x)), coder(x))
    assert coder.is_quantized is (name != "none")
    assert bool(coder.norm_in.rotated) is bool(coder.norm_out.rotated) is (name != "none")


@pytest.mark.parametrize("name", [name for name in QUANTIZERS if name != "none"])
@pytest.mark.parametrize("transcoder", TRANSCODERS)
def test_after_training(trained, tmp_path, transcoder, name):
    """The encoder has 8 bits, so that the code is nearly the float coder's."""
    rounding = f"{chosen('quantizer', name)} --encoder-quantizer rtn --encoder-quantizer.n-bits 8"
    source = trained[transcoder]
    made = qsae(f"quantize {rounding} --tokens 1024 --out {tmp_path}", source["path"])
    expect_stored_as_it_computes(made, name)
    # one bit of a Gaussian row leaves 0.36 of it (1 - 2 / pi)
    assert fvu(made) < fvu(source) + 0.36
    assert fvu(made) != fvu(source)


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("transcoder", TRANSCODERS)
def test_in_training(training, tmp_path, transcoder, name):
    """Both matrices, from the first step on."""
    parts = f"{chosen('quantizer', name)} {chosen('encoder-quantizer', name)}"
    made = qsae(f"{training[transcoder]} {parts} --no-compare-float --steps 20 --out {tmp_path}")
    expect_stored_as_it_computes(made, name)
    assert 0 < fvu(made) < 1
