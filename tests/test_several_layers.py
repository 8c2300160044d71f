"""What is reported of coders of several layers, recomputed from the held-out vectors in float64.

Shapes: B tokens, L layers, D width, F latents. The second layer's vectors are a hundred times as large as the
first one's, and far from zero.
"""

from __future__ import annotations

import json
import pathlib
import shlex
from typing import NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import qsae_core
from qsae_cli.main import cli
from qsae_core.artifact import places
from qsae_core.compose.compose import compose_data
from qsae_core.evaluation.run import recorded_config
from qsae_core.plugins.records import load_plugins

L, D, F, K = 2, 16, 64, 4
SMALL = (
    f"--middle layers --n-latents {F} --k {K} --steps 150 --batch-size 128 --statistics-tokens 512 "
    "--eval-tokens 512 --eval-every 0 --threads 1 --eval reconstruction --metric reconstruction "
    "--metric kappa"
)


class Trained(NamedTuple):
    """A run, its coder, what was reported of it, and the vectors that it was measured on."""

    run: pathlib.Path
    coder: qsae_core.contracts.SparseCoder
    values: dict[str, float]
    x: torch.Tensor
    """``[B, L, D]``."""


def qsae(line: str, *paths: pathlib.Path) -> dict:
    result = CliRunner().invoke(cli, [*shlex.split(line), *map(str, paths)], prog_name="qsae")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers")
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(48, D))
    codes = rng.random((12288, 48)) * (rng.random((12288, 48)) < 0.08)
    states = codes @ atoms + 0.05 * rng.normal(size=(12288, D))
    np.save(folder / "states.npy", np.stack([states, 100 * states[:, ::-1] + 30], 1).astype(np.float32))

    def train(flags: str, name: str) -> Trained:
        line = f"train {flags} {SMALL} --name {name} --json --data-path"
        summary = qsae(line, folder / "states.npy", "--out", folder / "results")
        run = pathlib.Path(summary["path"])
        registry = load_plugins().registry
        with_data = compose_data(recorded_config(places.artifact_folder(run), registry), registry)
        batches = [batch.x for batch in with_data.held_out(512, 128)]
        with_data.close()
        values = {n: c["evaluations"]["reconstruction"] for n, c in summary["coders"].items()}
        return Trained(run, qsae_core.load(run), values["coder"], torch.cat(batches))

    return train


@pytest.fixture(scope="module")
def crosscoder(train):
    return train("--sae crosscoder --quantizer ste --n-bits 3", "crosscoder")


def test_fvu_of_a_crosscoder_is_that_of_layers_normalised_by_their_own_statistics(crosscoder):
    x_BLD = crosscoder.x.double()
    r_BLD = x_BLD - crosscoder.coder.reconstruct(crosscoder.x).double()
    centred_BLD = x_BLD - x_BLD.mean(0)
    fvu_L = r_BLD.square().sum((0, 2)) / centred_BLD.square().sum((0, 2))
    for layer in range(L):
        assert crosscoder.values[f"fvu_layer_{layer}"] == pytest.approx(fvu_L[layer].item(), rel=1e-6)
    # every layer over its own RMS, then one sum of squares over another
    rms_L1 = centred_BLD.square().mean((0, 2)).sqrt()[:, None]
    normalised = (r_BLD / rms_L1).square().sum() / (centred_BLD / rms_L1).square().sum()
    assert crosscoder.values["fvu"] == pytest.approx(normalised.item(), rel=1e-6)
    # not that of the long vectors [L D], in which the second layer is all there is
    pooled = (r_BLD.square().sum() / centred_BLD.square().sum()).item()
    assert abs(pooled - fvu_L[1].item()) < 1e-3 * fvu_L[1].item()
    assert 0.01 < crosscoder.values["fvu"] < 0.7


def test_it_agrees_with_the_coders_own_normalised_space(crosscoder):
    """The training's statistics are those of other vectors of the same data; so within a few percent."""
    coder, x = crosscoder.coder, crosscoder.x
    z, z_hat = coder.norm_in(x).double(), coder.norm_in(coder.reconstruct(x)).double()
    normalised = (z - z_hat).square().sum() / (z - z.mean(0)).square().sum()
    assert crosscoder.values["fvu"] == pytest.approx(normalised.item(), rel=0.05)


def test_what_rounding_costs_a_crosscoder_is_predicted_in_the_same_space(crosscoder):
    coder, x_BLD = crosscoder.coder, crosscoder.x
    codes_BF = coder.encode(x_BLD).to_dense().double()
    variance_L = (x_BLD.double() - x_BLD.double().mean(0)).square().sum((0, 2)) / len(x_BLD)
    energy_F = codes_BF.square().mean(0)
    rounded_FL = coder.dictionary().double().norm(dim=2)
    rounded = (energy_F[:, None] * rounded_FL.square() / variance_L).mean(1).sum().item()
    # before rounding the joint norm of an atom's layers, each over its own scale, was 1
    energy_F = (coder.norm_in.scale.flatten().double().square() / variance_L).mean() / L * energy_F
    assert crosscoder.values["kappa"] == pytest.approx(energy_F.sum().item(), rel=0.01)
    assert rounded < 0.97 * crosscoder.values["kappa"]
    # with three bits the rows of a matrix lie some percent off; the prediction is kappa times that
    assert 0 < crosscoder.values["weight_error"] < 0.1
    assert crosscoder.values["predicted_delta_fvu"] == pytest.approx(
        crosscoder.values["kappa"] * crosscoder.values["weight_error"]
    )


def test_a_quantized_crosscoder_is_evaluated_beside_its_float_twin(crosscoder):
    """Its masters were not kept: the twin's atoms stand for them, both over the scales of layers."""
    again = qsae("evaluate --json", crosscoder.run)
    assert again["atom_errors_from"] == "float twin"
    values = again["evaluations"]["reconstruction"]
    assert values["fvu"] == pytest.approx(crosscoder.values["fvu"], rel=1e-6)
    twin = qsae_core.load(crosscoder.run / "checkpoints" / "float_twin")
    scale_L1 = crosscoder.coder.norm_in.scale.double()
    rows = [(c.dictionary().double() / scale_L1).flatten(1) for c in (crosscoder.coder, twin)]
    errors_F = 1 - torch.nn.functional.cosine_similarity(*rows).square()
    assert values["weight_error_unweighted"] == pytest.approx(errors_F.mean().item(), rel=1e-4)


@pytest.mark.parametrize("aggre", ["mean", "sum"])
def test_a_router_is_measured_on_the_vectors_that_it_takes(train, aggre):
    trained = train(f"--sae route --aggre {aggre} --no-compare-float", aggre)
    x_BLD = trained.x.double()
    stored = {
        n: t.double() for n, t in load_file(trained.run / "checkpoints/final/coder.safetensors").items()
    }
    z_BLD = (x_BLD - stored["norm_in.mean"]) / stored["norm_in.scale"]
    v_BD = z_BLD.mean(1) if aggre == "mean" else z_BLD.sum(1)
    choice_B = (v_BD @ stored["W_route"].T).argmax(1)
    taken_BD = x_BLD[torch.arange(len(x_BLD)), choice_B]
    r_BD = taken_BD - trained.coder.reconstruct(trained.x).double()
    fvu = r_BD.square().sum() / (taken_BD - taken_BD.mean(0)).square().sum()
    assert trained.values["fvu"] == pytest.approx(fvu.item(), rel=1e-5)
    relative = (r_BD.square().sum(1) / taken_BD.square().sum(1)).mean()
    assert trained.values["norm_mse"] == pytest.approx(relative.item(), rel=1e-5)
    assert "fvu_layer_0" not in trained.values
