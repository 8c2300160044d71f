"""``qsae compare`` on small real runs, from a sweep to the picture."""

from __future__ import annotations

import csv
import importlib.util
import json
import shlex
import shutil
import sys

import pytest
from click.testing import CliRunner
from qsae_compare.columns import COLUMNS

from qsae_cli.main import cli
from qsae_core.results.files import read_json, write_json

SWEEP = """
base: {sae: {use: topk}, sparsity: {use: topk, k: 4}, data: {use: synthetic, preset: tiny}}
config:
  train: {steps: 6, batch_size: 128, eval_tokens: 1024, eval_every: 0, statistics_tokens: 512}
  run: {compare_float: false, threads: 1, device: cpu}
  evaluate: [reconstruction]
grid:
  sae.n_latents: [32]
variants:
  float: {quantizer: none}
  4bit: {quantizer: {use: ste, n_bits: 4}, code_quantizer: {use: ste, n_bits: 4}}
quantized:
  rounded: {of: float, quantizer: {use: rtn, n_bits: 3}, tokens: 256}
  tuned: {of: float, quantizer: {use: rtn, n_bits: 3}, tokens: 256, finetune: encoder, finetune_steps: 4}
seeds: [0, 1]
"""
TWIN = shlex.split(
    "train --sae topk --n-latents 32 --k 4 --data synthetic --preset tiny --quantizer ste "
    "--quantizer.n-bits 4 --steps 6 --batch-size 128 --eval-tokens 1024 --eval-every 0 "
    "--statistics-tokens 512 --threads 1 --eval reconstruction --name twin"
)


def qsae(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a finished sweep and a run that has a float twin."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "sweep.yaml").write_text(SWEEP)
    qsae("compare", "--sweep", folder / "sweep.yaml", "--out", folder / "out")
    qsae(*TWIN, "--out", folder / "out")
    return folder


def runs(place, name="4bit-*"):
    return sorted(path.parent for path in place.glob(f"out/{name}/*/*/config.json"))


def table(*arguments):
    return json.loads(qsae("compare", *arguments, "--json").stdout)


def test_a_sweep_makes_one_table_and_trains_nothing_twice(place):
    before = {path: read_json(path / "config.json")["completed_at"] for path in runs(place, "*")}
    result = qsae("compare", "--sweep", place / "sweep.yaml", "--out", place / "out")
    assert "step" not in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split()[:5] == ["coder", "n", "b/w", "dec", "enc"]
    assert lines[1].startswith("float-n_latents-32")
    assert lines[2].startswith("4bit-n_latents-32")
    assert before == {path: read_json(path / "config.json")["completed_at"] for path in runs(place, "*")}


def test_rows_are_what_the_runs_have_measured(place):
    entries = table(*runs(place, "4bit-*"), *runs(place, "float-*"))
    measured = [read_json(path / "metrics.json")["coders"]["coder"] for path in runs(place)]
    floats = [read_json(path / "metrics.json")["coders"]["coder"] for path in runs(place, "float-*")]
    row, baseline = entries
    assert row["seeds"] == baseline["seeds"] == [0, 1]
    fvu = [entry["evaluations"]["reconstruction"]["fvu"] for entry in measured]
    before = [entry["evaluations"]["reconstruction"]["fvu"] for entry in floats]
    assert row["mean"]["fvu"] == pytest.approx(sum(fvu) / 2)
    assert row["std"]["fvu"] == pytest.approx(abs(fvu[0] - fvu[1]) / 2**0.5)
    assert row["mean"]["delta_fvu_points"] == pytest.approx(50 * (sum(fvu) - sum(before)))
    # 64 columns at 4 bits and a float16 scale
    assert row["mean"]["bits_decoder"] == 4 + 16 / 64
    assert row["mean"]["bits_encoder"] == 32
    assert row["mean"]["bits_per_value"] < 4.5
    assert baseline["mean"]["bits_per_value"] == 32
    assert row["mean"]["predicted_delta_fvu_points"] == pytest.approx(
        50 * sum(e["evaluations"]["reconstruction"]["predicted_delta_fvu"] for e in measured)
    )
    final = runs(place)[0] / "checkpoints" / "final"
    assert row["mean"]["bytes"] == pytest.approx(
        sum((final / name).stat().st_size for name in ("coder.json", "coder.safetensors")), rel=1e-3
    )


def test_a_sweep_quantizes_what_it_has_trained(place):
    kinds = ("float-*", "rounded-*", "tuned-*")
    paths = [path for kind in kinds for path in runs(place, kind)]
    floats, rounded, tuned = table(*paths)
    # one configuration but for how it was quantized: rows of their own, compared with the float run
    assert [row["label"] for row in (rounded, tuned)] == ["rounded-n_latents-32", "tuned-n_latents-32"]
    assert rounded["seeds"] == tuned["seeds"] == [0, 1]
    assert rounded["baseline"] == tuned["baseline"] == floats["paths"]
    assert rounded["mean"]["bits_decoder"] == 3 + 16 / 64
    assert rounded["mean"]["delta_fvu_points"] > 0
    assert tuned["mean"]["fvu"] != rounded["mean"]["fvu"]
    record = read_json(runs(place, "tuned-*")[0] / "metrics.json")["quantized_from"]
    assert record["method"]["finetune_steps"] == 4
    assert record["path"] == floats["paths"][0]


def test_a_quantized_run_alone_is_compared_with_what_it_was_made_from(place, tmp_path):
    run, source = runs(place, "rounded-*")[0], runs(place, "float-*")[0]
    (both, beside) = table(run, source)
    (alone,) = table(run)
    assert alone["baseline"] == beside["paths"] == [str(source / "checkpoints" / "final")]
    assert alone["mean"]["delta_fvu_points"] == pytest.approx(both["mean"]["delta_fvu_points"], rel=1e-6)
    assert (
        f"beside {source / 'checkpoints' / 'final'}, of which it was quantized" in qsae("compare", run).stdout
    )
    # measured again on other vectors: what is recorded of the source is of others, and it is not there
    (again,) = table(run, "--evaluate", "--tokens", "512")
    assert again["mean"]["delta_fvu_points"] is None
    # a stored coder of another configuration is not alike, and known by where it is and what it holds
    copy = shutil.copytree(source / "checkpoints" / "final", tmp_path / "copy")
    rounded = ["quantize", copy, "--quantizer", "rtn", "--quantizer.n-bits", "3", "--out", tmp_path / "out"]
    data = ["--data", "synthetic", "--preset", "tiny", "--data.world-seed", "1", "--tokens", "256"]
    qsae(*rounded, *data)
    (made,) = (path.parent for path in tmp_path.glob("out/**/metrics.json"))
    first, second = table(made, copy, "--evaluate", "--on", "data.world_seed=1", "--tokens", "512")
    assert first["baseline"] == [str(copy)]
    assert first["mean"]["delta_fvu_points"] == pytest.approx(
        100 * (first["mean"]["fvu"] - second["mean"]["fvu"])
    )


def test_a_sweep_whose_quantized_run_was_made_in_another_way_is_refused(place, tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("tokens: 256, finetune", "tokens: 255, finetune"))
    result = qsae("compare", "--sweep", tmp_path / "sweep.yaml", "--out", place / "out", code=2)
    assert "different: how it is quantized" in result.output


def test_a_run_brings_its_float_twin(place):
    (run,) = runs(place, "twin")
    row, twin = table(run)
    assert twin["label"] == "float twin"
    assert row["baseline"] == twin["paths"] == [str(run / "checkpoints" / "float_twin")]
    assert row["mean"]["delta_fvu_points"] == pytest.approx(100 * (row["mean"]["fvu"] - twin["mean"]["fvu"]))


def test_rows_on_different_data_have_a_note(place, tmp_path):
    qsae(*TWIN, "--data.world-seed", "1", "--out", tmp_path)
    other = next(tmp_path.rglob("metrics.json")).parent
    note = "FVUs of different data do not compare"
    text = qsae("compare", *runs(place, "twin"), other).stdout
    (line,) = (line for line in text.splitlines() if line.startswith(note))
    assert line == (
        f"{note}; on synthetic (world_seed=0): twin (data.world_seed=0), float twin (data.world_seed=0); "
        "on synthetic (world_seed=1): twin (data.world_seed=1), float twin (data.world_seed=1)"
    )
    text = qsae("compare", *runs(place, "*"), other).stdout
    assert "; on synthetic (world_seed=0): the other 6 rows\n" in text
    assert note not in qsae("compare", *runs(place, "*")).stdout


def test_a_baseline_by_name(place):
    (run,) = runs(place, "twin")
    rival = runs(place, "float-*")[0]
    (row, _) = table(run, "--baseline", rival)
    assert row["baseline"] == [str(rival / "checkpoints" / "final")]


def test_an_artifact_is_found_in_its_run_and_measured_where_it_stands_alone(place, tmp_path):
    final = runs(place)[0] / "checkpoints" / "final"
    (within,) = table(final)
    shutil.copytree(final, tmp_path / "moved")
    (alone,) = table(tmp_path / "moved")
    assert alone["label"] == "moved"
    assert alone["mean"]["fvu"] is None
    assert alone["mean"]["bits_decoder"] == within["mean"]["bits_decoder"]
    assert alone["mean"]["bytes"] == within["mean"]["bytes"]
    assert "--evaluate" in qsae("compare", tmp_path / "moved").stdout
    (measured,) = table(tmp_path / "moved", "--evaluate", "--device", "cpu")
    assert measured["mean"]["fvu"] == pytest.approx(within["mean"]["fvu"], rel=1e-6)
    assert measured["predicted_from"] == []
    write_json(tmp_path / "moved" / "metrics.json", read_json(final.parents[1] / "metrics.json"))
    (recorded,) = table(tmp_path / "moved")
    assert recorded["mean"]["fvu"] == within["mean"]["fvu"]


def test_the_csv_has_every_column(place, tmp_path):
    qsae("compare", *runs(place), "--csv", tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        (line,) = csv.DictReader(file)
    numbers = [f"{column}{suffix}" for column in COLUMNS for suffix in ("", "_std")]
    assert list(line) == ["label", "n", "seeds", *numbers, "equal_l0"]
    (row,) = table(*runs(place))
    assert float(line["fvu"]) == row["mean"]["fvu"]
    assert float(line["fvu_std"]) == row["std"]["fvu"]
    assert (line["n"], line["seeds"], line["ce_recovered"]) == ("2", "0 1", "")


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_picture(place, tmp_path, suffix, start):
    file = tmp_path / "new" / f"picture{suffix}"
    qsae("compare", *runs(place, "*"), "--plot", file)
    assert file.read_bytes().startswith(start)
    first = file.read_bytes()
    qsae("compare", *runs(place, "*"), "--plot", file)
    assert file.read_bytes() == first


def test_without_matplotlib_the_command_is_told(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    result = qsae("compare", *runs(place), "--plot", "x.svg", code=2)
    assert 'pip install "qsae-compare[plot]"' in result.stderr


def test_the_dry_run_trains_nothing(place, tmp_path):
    result = qsae("compare", "--sweep", place / "sweep.yaml", "--out", tmp_path / "new", "--dry-run")
    assert "8 of 8 runs would be made" in result.stdout
    assert not (tmp_path / "new").exists()
    again = "compare", "--sweep", place / "sweep.yaml", "--out", place / "out", "--dry-run", "--json"
    assert {entry["state"] for entry in json.loads(qsae(*again).stdout)} == {"finished"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to compare"),
        (["nowhere"], "there is no such file or folder"),
        (["nowhere", "--dry-run"], "is about a sweep"),
        (["nowhere", "--tokens", "5"], "nothing is measured without --evaluate"),
        (["nowhere", "--on", "data.use=lm"], "nothing is measured without --evaluate"),
        (["nowhere", "--evaluate", "--on", "data"], "--on data.use=lm"),
        (["nowhere", "--data-path", "x.pt"], "--evaluate --on data.use=tensors --on data.path=PATH"),
        (["nowhere", "--preset", "tiny"], "--evaluate --on data.use=synthetic --on data.preset=PRESET"),
        (["nowhere", "--data", "tensors"], "--evaluate --on data.use=NAME"),
        (["nowhere", "--evaluat"], "No such option"),
        (["nowhere", "--evaluate", "--on", "sae.use=topk"], "--on sae.use: unknown section 'sae'"),
        (["nowhere", "--plot", "x.pdf"], "allowed: .png, .svg"),
    ],
)
def test_refusals(arguments, message):
    assert message in qsae("compare", *arguments, code=2).stderr


def test_a_run_that_is_not_finished(place, tmp_path):
    write_json(tmp_path / "config.json", {})
    assert "is not finished" in qsae("compare", tmp_path, code=2).stderr


def test_what_was_evaluated_since_is_seen(tmp_path):
    """A cross-entropy that training did not measure; of what it did, the values of more tokens, but for
    evaluations whose values rest on weights that only the end of the run knew."""
    small = (
        "--n-latents 64 --k 8 --steps 10 --batch-size 256 --buffer-tokens 4096 --eval-tokens 1024 --threads 1"
    )
    line = shlex.split(f"train --sae topk {small} --eval-every 0 --name it --device cpu")
    qsae(*line, "--eval", "reconstruction", "--out", tmp_path)
    (run,) = [config.parent for config in tmp_path.glob("it/*/*/config.json")]
    (before,) = table(run)
    assert before["mean"]["ce_recovered"] is None
    qsae("evaluate", run, "--eval", "loss-recovered", "--eval", "samples", "--tokens", "512")
    stored = read_json(run / "evaluations" / "loss-recovered" / "result.json")["values"]
    (after,) = table(run)
    assert after["mean"]["ce_recovered"] == stored["ce_recovered"]
    assert after["mean"]["delta_ce"] == stored["ce_sae"] - stored["ce_clean"]
    assert after["mean"]["fvu"] == before["mean"]["fvu"]
    (on,) = after["measured_on"]
    n_tokens = read_json(run / "metrics.json")["coders"]["coder"]["evaluations"]["reconstruction"]["n_tokens"]
    assert on.startswith(f"{int(stored['n_tokens'])} (loss-recovered) and {int(n_tokens):,} (reconstruction)")
    qsae("evaluate", run, "--eval", "loss-recovered", "--tokens", "2048")
    fuller = read_json(run / "evaluations" / "loss-recovered" / "result.json")["values"]
    assert table(run)[0]["mean"]["ce_recovered"] == fuller["ce_recovered"] != stored["ce_recovered"]
    qsae("evaluate", run, "--eval", "reconstruction", "--tokens", "2048")
    assert table(run)[0]["mean"]["kappa"] == before["mean"]["kappa"]
