"""``qsae compare --evaluate``: what is measured again, and what the record still says of it."""

from __future__ import annotations

import json
import shlex
import shutil

import pytest
from click.testing import CliRunner

from qsae_cli.main import cli
from qsae_core.results.files import read_json, write_json

TRAIN = shlex.split(
    "train --sae topk --n-latents 32 --k 4 --data synthetic --preset tiny --quantizer ste "
    "--quantizer.n-bits 4 --steps 6 --batch-size 128 --eval-tokens 1024 --eval-every 0 "
    "--statistics-tokens 512 --threads 1 --eval reconstruction --name twin"
)


def qsae(*arguments):
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a float twin, and without its float masters."""
    folder = tmp_path_factory.mktemp("again")
    qsae(*TRAIN, "--out", folder)
    return next(folder.rglob("metrics.json")).parent


def table(*arguments):
    return json.loads(qsae("compare", *arguments, "--json").stdout)


def without_twin(run):
    """The run at this path, after its float twin was taken out."""
    shutil.rmtree(run / "checkpoints" / "float_twin")
    summary = read_json(run / "metrics.json")
    del summary["coders"]["float_twin"]
    write_json(run / "metrics.json", summary)
    return run


def test_measuring_again_gives_the_same_or_uses_fewer_tokens(run):
    recorded, again = table(run), table(run, "--evaluate", "--device", "cpu")
    for column in ("fvu", "l0", "bits_per_token", "kappa", "weight_error", "predicted_delta_fvu_points"):
        assert again[0]["mean"][column] == pytest.approx(recorded[0]["mean"][column], rel=1e-6), column
    assert again[0]["predicted_from"] == ["masters"]
    fewer = table(run, "--evaluate", "--tokens", "512", "--device", "cpu")
    assert fewer[0]["mean"]["fvu"] != again[0]["mean"]["fvu"]


def test_kappa_and_prediction_are_of_the_vectors_that_fvu_is_of(run, tmp_path):
    """Of fewer tokens what ``qsae evaluate`` gives: by the float twin's atoms, or without one unpredicted."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    fewer = "--tokens", "512", "--device", "cpu"
    values = json.loads(qsae("evaluate", copy, *fewer, "--json").stdout)["evaluations"]["reconstruction"]
    row, _ = table(copy, "--evaluate", *fewer)
    for column in ("fvu", "kappa", "weight_error"):
        assert row["mean"][column] == values[column], column
    assert row["mean"]["predicted_delta_fvu_points"] == pytest.approx(100 * values["predicted_delta_fvu"])
    assert row["predicted_from"] == ["float twin"]
    (alone,) = table(without_twin(copy), "--evaluate", *fewer)
    assert alone["mean"]["fvu"] == values["fvu"]
    assert alone["mean"]["kappa"] > 0
    assert alone["mean"]["weight_error"] is alone["mean"]["predicted_delta_fvu_points"] is None
    assert alone["predicted_from"] == []


def test_a_record_of_other_vectors_under_the_same_name_predicts_nothing(run, tmp_path):
    """As if the vectors had been replaced since: the FVU that is measured is not that of the record."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    without_twin(copy)
    assert table(copy, "--evaluate")[0]["predicted_from"] == ["masters"]
    summary = read_json(copy / "metrics.json")
    summary["coders"]["coder"]["evaluations"]["reconstruction"]["fvu"] *= 1.01
    write_json(copy / "metrics.json", summary)
    assert table(copy, "--evaluate")[0]["mean"]["predicted_delta_fvu_points"] is None


def test_coders_are_measured_on_other_data_by_other_evaluations(run):
    (here, _), (there, _) = table(run), table(run, "--evaluate", "--on", "data.world_seed=5")
    asked = qsae("evaluate", run, "--data.world-seed", "5", "--json").stdout
    assert there["mean"]["fvu"] == json.loads(asked)["evaluations"]["reconstruction"]["fvu"]
    assert there["mean"]["fvu"] != here["mean"]["fvu"]
    (lacking, _) = table(run, "--evaluate", "--on", "metrics=[sparsity]")
    assert (lacking["mean"]["l0"], lacking["mean"]["fvu"]) == (here["mean"]["l0"], None)


def test_a_float_twin_stands_in_for_masters_that_were_not_kept(run, tmp_path):
    """Where the record says nothing of weight errors either; the table then says so."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    summary = read_json(copy / "metrics.json")
    for entry in summary["coders"].values():
        for name in ("kappa", "weight_error", "weight_error_unweighted", "predicted_delta_fvu"):
            del entry["evaluations"]["reconstruction"][name]
    write_json(copy / "metrics.json", summary)
    shutil.rmtree(copy / "evaluations")
    row, _ = table(copy, "--evaluate", "--device", "cpu")
    assert row["predicted_from"] == ["float twin"]
    assert row["mean"]["weight_error"] > 0
    assert "predicted from the float twin's atoms" in qsae("compare", copy, "--evaluate").stdout
