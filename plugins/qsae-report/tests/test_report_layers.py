"""``qsae report`` of a run with a coder for each of several layers."""

from __future__ import annotations

import pathlib

import pytest
import torch
from click.testing import CliRunner, Result
from qsae_report.gather import gather

from qsae_cli.main import cli


def qsae(*words: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, words)), prog_name="qsae")


def made(*words: object) -> str:
    done = qsae(*words)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run with a coder, and a float twin, for each of three layers."""
    folder = tmp_path_factory.mktemp("layers")
    torch.save(torch.randn(2000, 3, 8, generator=torch.Generator().manual_seed(0)), folder / "states.pt")
    states = ["--middle", "layers", "--data-path", folder / "states.pt", "--per-layer"]
    small = ["--n-latents", 16, "--k", 2, "--steps", 2, "--batch-size", 64, "--eval", "reconstruction"]
    made(
        "train", "--sae", "ternary", "--quantizer", "ste", *states, *small, "--out", folder, "--name", "each"
    )
    (run,) = (folder / "each").glob("*/2")
    return run


def test_of_several_layers_the_first_with_samples_is_shown(layers, make_samples):
    assert gather(layers, with_samples=False).layer == "0"
    file = layers / "samples/layers/2/samples.safetensors"
    make_samples(16, ["up"]).save(file)
    try:
        found = gather(layers)
    finally:
        file.unlink()
    assert (found.layer, found.other_layers) == ("2", ["0", "1"])
    assert found.twin is not None
    assert found.coder.folder.parts[-2:] == ("final", "2")
    assert found.twin.folder.parts[-2:] == ("float_twin", "2")
    # each coder has its own numbers, and its own size
    values = [coder.value("fvu", "reconstruction") for coder in (found.coder, found.twin)]
    sizes = [coder.artifact["bytes"] for coder in (found.coder, found.twin)]
    assert len({*values}) == 2
    assert None not in values
    assert sizes[0] < sizes[1]


def test_a_layer_is_chosen_by_name(layers, tmp_path):
    made("report", layers, "--without-samples", "--layer", "1", "--out", tmp_path / "it.html")
    assert "0, 2; a report of one: qsae report" in (tmp_path / "it.html").read_text()
    said = qsae("report", layers, "--without-samples", "--layer", "9")
    assert said.exit_code == 2
    assert "allowed: 0, 1, 2" in said.output
