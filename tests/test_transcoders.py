"""Transcoders by the commands that SAEs have: files of two widths, both sides of layers, and a known map."""

from __future__ import annotations

import json
import pathlib
import re
import shlex
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import qsae_core
from benchmarks.scores import match
from qsae_cli.main import cli
from qsae_core.compose.compose import compose_data
from qsae_core.contracts import DataSource
from qsae_core.evaluation.run import recorded_config
from qsae_core.plugins.records import load_plugins

SMALL = "--batch-size 128 --statistics-tokens 1024 --eval-every 0 --threads 1 --eval reconstruction"
CODERS = {
    "transcoder": "--transcoder transcoder --n-latents 64 --k 8",
    "nested": "--transcoder matryoshka-transcoder --n-latents 128 --k 8 --sparsity batchtopk",
}


def qsae(line: str, *paths: object) -> str:
    result = CliRunner().invoke(cli, [*shlex.split(line), *map(str, paths)], prog_name="qsae")
    assert result.exit_code == 0, result.output
    return result.stdout


def run_of(out: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """The one run below, and what its metrics say of its coder."""
    (metrics,) = out.rglob("metrics.json")
    return metrics.parent, json.loads(metrics.read_text())["coders"]["coder"]


def source_of(run: pathlib.Path) -> DataSource:
    """The data that a run's coder was trained on."""
    registry = load_plugins().registry
    return compose_data(recorded_config(run / "checkpoints" / "final", registry), registry)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """16 dimensions to 12: a linear part and features that are read here and written there."""
    rng = np.random.default_rng(0)
    f = rng.random((6000, 48)) * (rng.random((6000, 48)) < 0.08)
    x = f @ rng.normal(size=(48, 16)) + 0.02 * rng.normal(size=(6000, 16)) + 3
    y = 5 * f @ rng.normal(size=(48, 12)) + x @ rng.normal(size=(16, 12)) - 40
    folder = tmp_path_factory.mktemp("pairs")
    np.save(folder / "x.npy", x.astype(np.float32))
    np.save(folder / "y.npy", y.astype(np.float32))
    return folder


def of_files(pairs: pathlib.Path) -> str:
    return f"--data tensors --data-path {pairs / 'x.npy'} --target-path {pairs / 'y.npy'}"


@pytest.mark.parametrize("skip", ["--skip", "--no-skip"])
@pytest.mark.parametrize("name", CODERS)
def test_every_command(name: str, skip: str, pairs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Train with a screen, evaluate, quantize and fine-tune, compare, bench; levels where there are some."""
    screen = "bf16" if name == "transcoder" else "none"  # for rules with a fixed k
    line = (
        f"train {CODERS[name]} {skip} {of_files(pairs)} {SMALL} --steps 150 --lr 0.01 --screen {screen} --out"
    )
    qsae(line, tmp_path / "float")
    run, entry = run_of(tmp_path / "float")
    fvu = entry["evaluations"]["reconstruction"]["fvu"]
    assert fvu < 0.5
    coder = qsae_core.load(run)
    x = torch.from_numpy(np.load(pairs / "x.npy")[:64])
    y = torch.from_numpy(np.load(pairs / "y.npy")[:64])
    assert coder(x).shape == (64, 12)
    assert coder.has_skip is (skip == "--skip")
    # in the target's own space, 40 away from the source's
    assert (coder(x) - y).square().sum() < 0.6 * (y - y.mean(0)).square().sum()
    assert json.loads(qsae("evaluate --json", run))["evaluations"]["reconstruction"]["fvu"] == pytest.approx(
        fvu
    )

    qsae(
        "quantize --quantizer gptq --n-bits 4 --finetune encoder --finetune-steps 20 --out",
        tmp_path / "four",
        run,
    )
    four, rounded = run_of(tmp_path / "four")
    assert rounded["evaluations"]["reconstruction"]["fvu"] < fvu + 0.1
    assert qsae_core.load(four).is_quantized
    table = qsae("compare", run, four)
    assert "gptq" in table
    assert "none" in table
    if name == "transcoder":  # speed is compared where k is fixed
        speed = json.loads(qsae("bench --quick --screen none --json", four))
        assert speed["same_entries"] > 0.999
    else:
        levels = json.loads(qsae("evaluate --all-levels --json", run))
        assert len(levels) == coder.levels == 4
        small = qsae_core.load(run, level=2)
        torch.testing.assert_close(small(x), coder.at_level(2)(x))


@pytest.mark.parametrize("skip", [True, False])
def test_fvu_of_each_group_is_logged_and_reported(
    skip: bool, pairs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """What is reported is recomputed from the held-out vectors and the levels, whose codes are cut."""
    flag = "--skip" if skip else "--no-skip"
    qsae(f"train {CODERS['nested']} {flag} {of_files(pairs)} {SMALL} --steps 60 --out", tmp_path)
    run, entry = run_of(tmp_path)
    logged = json.loads((run / "metrics" / "log.jsonl").read_text().splitlines()[-1])
    assert {"fvu_1", "fvu_2", "fvu_3", "fvu_4", "l0", "dead"} <= logged.keys()
    assert logged["fvu_4"] == pytest.approx(logged["fvu"], rel=1e-4)
    held_out = list(source_of(run).held_out(10**6, 512))
    x, y = torch.cat([b.x for b in held_out]), torch.cat([b.y for b in held_out]).double()
    coder = qsae_core.load(run)
    spread = (y - y.mean(0)).square().sum()
    fvus = [((coder.at_level(g)(x) - y).square().sum() / spread).item() for g in (1, 2, 3, 4)]
    values = entry["evaluations"]["reconstruction"]
    assert [values[f"fvu_{g}"] for g in (1, 2, 3, 4)] == pytest.approx(fvus, rel=1e-4)
    assert fvus[3] < fvus[0]
    assert values["fvu_min"] == pytest.approx(min(fvus), rel=1e-4)
    assert values["fvu_mean"] == pytest.approx(sum(fvus) / 4, rel=1e-4)
    assert values["fvu_max"] == pytest.approx(max(fvus), rel=1e-4)


def test_one_for_each_layer(tmp_path: pathlib.Path) -> None:
    """Both layers of synthetic pairs: each is the transcoder that would be trained alone."""
    data = "--data synthetic --d-target 48 --n-latents 128 --k 4"
    line = f"train --transcoder transcoder --skip {data} {SMALL} --steps 40 --eval-tokens 1024"
    qsae(f"{line} --layers 2 --per-layer --out", tmp_path / "both")
    qsae(f"{line} --out", tmp_path / "one")
    (metrics,) = (tmp_path / "both").rglob("metrics.json")
    coders = qsae_core.load_set(metrics.parent)
    alone = qsae_core.load(run_of(tmp_path / "one")[0])
    first = coders.by_layer()[0]
    assert coders.shape[:4] == (64, 48, 2, 2)
    assert torch.equal(first.atoms(), alone.atoms())


@pytest.mark.parametrize(
    ("name", "least_mcc", "least_f1"), [("transcoder", 0.95, 0.75), ("matryoshka-transcoder", 0.85, 0.65)]
)
def test_a_known_map_is_found(name: str, least_mcc: float, least_f1: float, tmp_path: pathlib.Path) -> None:
    """Targets of half of 128 features, in another dictionary: 64 latents are as many, and 3 are active.

    Of 64 random directions of width 48 the best one-to-one matching with the true ones has a mean |cos| of
    0.33; a latent that fires at random as often as its feature, on 5% of tokens, has an F1 of 0.05. A skip
    connection would have a share of a map that is as linear as this one.
    """
    world = "--data synthetic --n-features 128 --d-target 48 --target-share 0.5 --n-roots 0 --p-min 0.02"
    line = f"train --transcoder {name} --n-latents 64 --sparsity batchtopk --k 3 {world} {SMALL}"
    qsae(f"{line} --batch-size 512 --steps 1500 --eval-tokens 8192 --out", tmp_path)
    run, _ = run_of(tmp_path)
    source: Any = source_of(run)
    truth = source.target_dictionary()
    counts = truth.norm(dim=1) > 0
    coder = qsae_core.load(run)
    atoms = torch.nn.functional.normalize(coder.atoms(), dim=1)
    cosines = (truth[counts] @ atoms.T).numpy()
    matched = match(-np.abs(cosines))
    mcc = np.abs(cosines)[np.arange(len(matched)), matched].mean()
    fired = source.held_out_target_features(8192).to_dense()[:, counts] > 0
    x = torch.cat([batch.x for batch in source.held_out(8192, 1024)])
    active = coder.encode(x).to_dense()[:, matched] > 0
    f1 = (2 * (fired & active).sum(0) / (fired.sum(0) + active.sum(0)).clamp_min(1)).mean().item()
    assert counts.sum() == 64
    assert mcc > least_mcc
    assert f1 > least_f1


def test_files_of_other_lengths_are_refused(pairs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "y.npy", np.load(pairs / "y.npy")[:-1])
    data = f"--data tensors --data-path {pairs / 'x.npy'} --target-path {tmp_path / 'y.npy'}"
    line = f"train {CODERS['transcoder']} {data} {SMALL} --steps 5 --out {tmp_path / 'no'}"
    done = CliRunner().invoke(cli, shlex.split(line), prog_name="qsae")
    assert done.exit_code == 2
    assert "5999 target rows for 6000 rows in" in done.output
    assert "one target row for each source row, in the same order" in done.output


BACKWARDS = [
    (
        "--transcoder transcoder --source-layer 2 --target-layer 1",
        "1.mlp_out would be made of 2.mlp_in",
    ),
    (
        "--transcoder transcoder --source-layer 1 --source-site resid_post --target-site mlp_out",
        "1.mlp_out would be made of 1.resid_post",
    ),
    (
        "--transcoder transcoder --per-layer --sites 1.mlp_in,3.mlp_in --target-sites 1.mlp_out,2.mlp_out",
        "2.mlp_out would be made of 3.mlp_in",
    ),
    (
        "--transcoder cross-layer-transcoder --sites 1.mlp_in,0.mlp_in --target-sites 1.mlp_out,0.mlp_out",
        "0.mlp_out would be made of 1.mlp_in",
    ),
]


@pytest.mark.parametrize(("places", "message"), BACKWARDS)
def test_a_target_that_is_computed_before_its_source_is_refused(tmp_path, places, message):
    line = f"train {places} --model builtin --n-latents 64 --steps 2 {SMALL} --out"
    result = CliRunner().invoke(cli, [*shlex.split(line), str(tmp_path)])
    assert result.exit_code == 2
    assert f"{message}, which the language model computes later" in result.output
    assert "exchange the source and the target" in result.output
    assert not list(tmp_path.rglob("config.json"))


@pytest.mark.parametrize(("normalize", "warned"), [("none", True), ("center", False)])
def test_inputs_far_from_zero_that_stay_there_are_warned_of(tmp_path, normalize, warned):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", (500 + rng.normal(size=(600, 8))).astype(np.float32))
    np.save(tmp_path / "y.npy", rng.normal(size=(600, 8)).astype(np.float32))
    line = f"train --transcoder transcoder --n-latents 16 --k 2 --normalize {normalize} --steps 2 {SMALL}"
    result = CliRunner().invoke(
        cli, [*shlex.split(f"{line} {of_files(tmp_path)} --out"), str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    said = re.search(r"the mean of the inputs is (\d+) times as long as their spread", result.stderr)
    assert (said is not None) is warned
    if said is not None:
        assert int(said[1]) == pytest.approx(500, rel=0.05)
