"""What commands measure: of a coder's training data what was held out, of other data all."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from click.testing import CliRunner

import qsae_core
from qsae_cli.main import cli
from qsae_core.artifact import artifact
from qsae_core.artifact.places import artifact_folder
from qsae_core.conformance.toy_data import ToyData
from qsae_core.contracts import CoderShape
from qsae_core.errors import ConfigError
from qsae_core.evaluation.fitting import of_other_sites
from qsae_core.evaluation.measured_part import MeasuredPart, source_record
from qsae_core.evaluation.run import recorded_config
from qsae_core.plugins.records import load_plugins
from qsae_core.results.files import read_json, write_json
from qsae_core.runs import load_other_float

TRAIN = shlex.split(
    "train --sae topk --n-latents 32 --k 4 --steps 6 --batch-size 128 --eval-every 0 --statistics-tokens 512 "
    "--threads 1 --eval reconstruction --data-path"
)


def qsae(*arguments):
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result


def evaluated(run, *arguments):
    """The values of the one evaluation, and what was measured."""
    entry = json.loads(qsae("evaluate", run, *arguments, "--json").stdout)
    return entry["evaluations"]["reconstruction"], entry["measured"]


def vectors(rows, seed):
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)) + 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files ``mine.pt`` (2,000 rows), ``other.pt`` (1,500) and ``grown.pt`` (mine and 1,000 more)."""
    folder = tmp_path_factory.mktemp("files")
    torch.save(vectors(2000, 1), folder / "mine.pt")
    torch.save(vectors(1500, 2), folder / "other.pt")
    torch.save(torch.cat([vectors(2000, 1), vectors(1000, 3)]), folder / "grown.pt")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    qsae(*TRAIN, folder / "mine.pt", "--out", folder / "results")
    return next(folder.rglob("metrics.json")).parent


@pytest.fixture(scope="module")
def of_training(run):
    """What training measured: the held-out rows."""
    return read_json(run / "metrics.json")["coders"]["coder"]["evaluations"]["reconstruction"]


def test_all_of_another_file_is_measured(folder, run):
    """FVU by its definition, over all rows of the file."""
    values, measured = evaluated(run, "--data-path", folder / "other.pt")
    assert measured == {"what": "all 1,500 rows of other.pt", "warning": None}
    assert values["n_tokens"] == 1500
    x = torch.load(folder / "other.pt").double()
    error = (x - qsae_core.load(run).reconstruct(x.float()).double()).square().sum()
    assert values["fvu"] == pytest.approx((error / (x - x.mean(0)).square().sum()).item(), rel=1e-5)


def test_as_many_as_are_asked_for(folder, run):
    shown = qsae("evaluate", run, "--data-path", folder / "other.pt", "--tokens", 700).stdout
    assert "measured on 700 vectors of all 1,500 rows of other.pt\n" in shown


@pytest.mark.parametrize("name", ["mine.pt", "moved.pt", "grown.pt"])
def test_of_the_training_data_what_was_held_out(folder, run, of_training, name):
    """Under its own name, under another, and with rows behind it."""
    if name == "moved.pt":
        (folder / name).write_bytes((folder / "mine.pt").read_bytes())
    values, measured = evaluated(run, "--data-path", folder / name)
    held = int(of_training["n_tokens"])
    rows = "3,000" if name == "grown.pt" else "2,000"
    assert measured["warning"] is None
    if name == "grown.pt":
        assert held <= values["n_tokens"] < 300
    else:
        assert values == pytest.approx(of_training)
    n_held = int(values["n_tokens"])
    assert measured["what"] == f"the {n_held} held-out of the {rows} rows of {name}"


def test_another_file_under_the_name_of_the_training_data(folder, run, tmp_path):
    torch.save(vectors(2000, 1), tmp_path / "x.pt")
    qsae(*TRAIN, tmp_path / "x.pt", "--out", tmp_path / "results")
    trained = next(tmp_path.rglob("metrics.json")).parent
    torch.save(vectors(2000, 5), tmp_path / "x.pt")
    values, measured = evaluated(trained)
    assert (values["n_tokens"], measured["what"]) == (2000, "all 2,000 rows of x.pt")


@pytest.mark.parametrize("split", [["--split-seed", "1"], ["--held-out", "0.2"]])
def test_training_rows_are_measured_with_a_warning(run, split):
    done = qsae("evaluate", run, *split)
    assert "qsae: warning: this coder was trained on some of what is measured (the " in done.stderr
    assert "measured on" in done.stdout


def test_where_training_data_was_not_recorded(run, folder, tmp_path):
    """An artifact of a version that did not record it: what is held out is measured, and that is said."""
    of_old, source, registry = tmp_path / "old", artifact_folder(run), load_plugins().registry
    artifact.save(artifact.load(source), of_old, recorded_config(source, registry), registry, {"model": "m"})
    done = qsae("evaluate", of_old, "--data-path", folder / "other.pt")
    assert "warning: what this coder was trained on is not recorded" in done.stderr
    assert "held-out of the 1,500 rows of other.pt" in done.stdout


def test_compare_measures_all_of_other_data(folder, run):
    shown = qsae("compare", run, "--evaluate", "--on", f"data.path={folder / 'other.pt'}")
    assert "measured on 1,500 vectors of all 1,500 rows of other.pt\n" in shown.stdout
    recorded = qsae("compare", run).stdout
    assert "held-out of the 2,000 rows of mine.pt\n" in recorded
    warned = qsae("compare", run, "--evaluate", "--on", "data.split_seed=1")
    assert "qsae: warning: this coder was trained on some of what is measured" in warned.stderr


def test_quantize_holds_out_of_other_data_what_it_calibrates_on_not(folder, run, tmp_path):
    """And the coder knows both: the data of its training, and that of its calibration."""
    other = folder / "other.pt"
    qsae("quantize", run, "--quantizer", "ste", "--data-path", other, "--tokens", 512, "--out", tmp_path)
    made = next(tmp_path.rglob("metrics.json")).parent
    entry = read_json(made / "metrics.json")["coders"]["coder"]
    n_held = int(entry["evaluations"]["reconstruction"]["n_tokens"])
    assert entry["measured"]["what"] == f"the {n_held} held-out of the 1,500 rows of other.pt"
    for name, rows in (("mine.pt", "2,000"), ("other.pt", "1,500")):
        _, measured = evaluated(made, "--data-path", folder / name)
        assert f"held-out of the {rows} rows of {name}" in measured["what"]
    again = ("quantize", run, "--quantizer", "ste", "--tokens", 512, "--out", tmp_path, "--name", "again")
    warned = qsae(*again, "--split-seed", 1)
    assert "warning: this coder was trained on some of what is measured" in warned.stderr


def test_a_summary_without_it_is_compared(run, tmp_path):
    """Of a run of a version that did not record what was measured."""
    summary = read_json(run / "metrics.json")
    kept = json.loads(json.dumps(summary))
    del summary["coders"]["coder"]["measured"]
    write_json(run / "metrics.json", summary)
    try:
        assert "measured on" not in qsae("compare", run).stdout
    finally:
        write_json(run / "metrics.json", kept)


class OfSites(ToyData):
    """Vectors that are known to be of a site."""

    def __init__(self, *sites):
        super().__init__(CoderShape(4, 4))
        self.sites = sites

    def describe(self):
        return dict(zip(("source_sites", "target_sites"), self.sites, strict=False))


@pytest.mark.parametrize(
    ("trained", "here", "words"),
    [
        ((["9.mlp_out"], ["9.mlp_out"]), (["3.mlp_out"], ["3.mlp_out"]), ("of 9.mlp_out", "of 3.mlp_out")),
        (
            (["9.mlp_in"], ["9.mlp_out"]),
            (["9.mlp_in"], ["9.mlp_in"]),
            ("of 9.mlp_in -> 9.mlp_out", "of 9.mlp_in"),
        ),
        ((["9.mlp_in"], ["9.mlp_out"]), (["9.mlp_in"], ["9.mlp_out"]), None),
        ((), (["9.mlp_in"], ["9.mlp_out"]), None),
        ((["9.mlp_in"], ["9.mlp_out"]), (), None),
    ],
)
def test_vectors_of_other_sites_are_named(trained, here, words):
    description = {"source": OfSites(*trained).describe()}
    found = of_other_sites(OfSites(*here), description)
    if words is None:
        assert found is None
        return
    assert found == f"this coder was trained on vectors {words[0]}, and those here are {words[1]}"
    part = MeasuredPart("all of it", "held out otherwise", None)
    assert part.warned(found).warning == f"held out otherwise; {found}"
    assert part.warned(None) == part


@pytest.mark.parametrize("command", ["evaluate", "quantize"])
def test_a_coder_on_vectors_of_another_layer_is_told_so(tmp_path, command):
    lines = (
        "--model builtin --site mlp_out --threads 1 --eval reconstruction --eval-every 0 --steps 2 --layer 1"
    )
    sizes = "--n-latents 32 --k 4 --batch-size 64 --statistics-tokens 128 --eval-tokens 128 --device cpu"
    qsae(*shlex.split(f"train --sae topk {lines} {sizes}"), "--out", tmp_path)
    run = next(tmp_path.rglob("metrics.json")).parent
    more = ["--quantizer", "rtn", "--tokens", 128, "--out", tmp_path / "q"] if command == "quantize" else []
    done = qsae(command, run, "--layer", 2, *more)
    assert (
        "warning: this coder was trained on vectors of 1.mlp_out, and those here are of 2.mlp_out"
        in done.stderr
    )


def test_a_coder_that_is_quantized_on_saved_vectors_is_still_of_its_model(tmp_path):
    line = (
        "--model builtin --site mlp_out --layer 1 --threads 1 --eval reconstruction --eval-every 0 --steps 2"
    )
    sizes = "--n-latents 32 --k 4 --batch-size 64 --statistics-tokens 128 --eval-tokens 128 --device cpu"
    qsae(*shlex.split(f"train --sae topk {line} {sizes}"), "--out", tmp_path)
    run = next(tmp_path.rglob("metrics.json")).parent
    torch.save(torch.randn(600, qsae_core.load(run).shape.d_in), tmp_path / "states.pt")
    more = ["--quantizer", "rtn", "--tokens", 128, "--data", "tensors", "--data-path", tmp_path / "states.pt"]
    qsae("quantize", run, *more, "--out", tmp_path / "q")
    quantized = next((tmp_path / "q").rglob("metrics.json")).parent
    before, after = (read_json(artifact_folder(path) / "coder.json")["source"] for path in (run, quantized))
    first, second = after.pop("trained_on")
    assert [first] == before.pop("trained_on")
    assert (first["use"], second["use"]) == ("lm", "tensors")
    assert after == before
    assert (after["model"], after["layer"], after["source_sites"]) == ("builtin", "1-mlp_out", ["1.mlp_out"])
    for path in (run, quantized):  # another one for a coder of saved vectors, which may be of any layer
        assert load_other_float(str(path), qsae_core.load(run), OfSites([], []), "--other").n_latents == 32
        with pytest.raises(ConfigError, match="is of layer 1-mlp_out, and this one of layer 0"):
            load_other_float(str(path), qsae_core.load(run), OfSites(["2.mlp_out"], ["2.mlp_out"]), "--other")
    # and what it is measured on is compared with that
    assert (
        "warning: this coder was trained on vectors of 1.mlp_out, and those here are of 2.mlp_out"
        in (
            qsae(
                "evaluate", quantized, "--data", "lm", "--model", "builtin", "--site", "mlp_out", "--layer", 2
            )
        ).stderr
    )


HERE = {"model": "toy", "layer": "toy", "source_sites": ["9.mlp_in"], "target_sites": ["9.mlp_out"]}
SITES = {"source_sites": ["9.mlp_in"], "target_sites": ["9.mlp_out"]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"no_data": True, "imported_from": {}}, {**HERE, "imported_from": {}}),  # nothing is known of it
        ({"model": "gpt2", "layer": "3"}, {"model": "gpt2", "layer": "3"}),  # all that is asked
        (
            {"model": "gpt2", "context": 64},
            {"model": "gpt2", "context": 64},
        ),  # other vectors' place is not its
        ({"model": "toy", "context": 64}, {**HERE, "context": 64}),
        (SITES, HERE),
        ({**SITES, "source_sites": ["3.mlp_in"]}, {**SITES, "source_sites": ["3.mlp_in"]}),
    ],
)
def test_what_a_coder_does_not_say_of_its_vectors_the_data_says_if_it_fits(run, before, after):
    data = OfSites(["9.mlp_in"], ["9.mlp_out"])
    data.model_name = data.layer = "toy"
    config = recorded_config(artifact_folder(run), load_plugins().registry)
    assert source_record(data, config, before) == after
    found = source_record(data, config, {**before, "trained_on": [3]})
    assert found["trained_on"][0] == 3
    assert len(found.pop("trained_on")) == 2
    assert found == after
