"""``qsae plot`` as a user runs it, on small runs of the built-in language model."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner

from qsae_cli.main import cli

FEW = "--steps 8 --batch-size 128 --eval-tokens 256 --statistics-tokens 256 --threads 1"
OFTEN = "--eval-every 4 --log-every 2"
TINY = ["--n-latents", "64", "--k", "4", *FEW.split(), *OFTEN.split(), "--eval", "reconstruction"]
SVG = "{http://www.w3.org/2000/svg}"


def qsae(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for n in range(60):
        (folder / f"{n}.py").write_text(
            f"def f{n}(x):\n    return x + {n}  # {n} more\n" * 12, encoding="utf-8"
        )
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, texts):
    """A quantized run with its twin and samples; a float one of another k; one of two layers."""
    out = tmp_path_factory.mktemp("runs")
    data = ["--text", texts, "--context", "32", "--held-out-share", "0.3"]
    common = [*TINY, *data, "--out", out]
    qsae("train", "--sae", "topk", "--quantizer", "ste", *common, "--layer", "1", "--name", "four")
    qsae("train", "--sae", "topk", *common, "--layer", "1", "--name", "float")
    qsae("train", "--sae", "topk", *common, "--layers", "1,2", "--per-layer", "--name", "each")
    found = {config.parents[2].name: config.parent for config in out.glob("*/*/*/config.json")}
    qsae("samples", found["four"], "--tokens", "2K", "--top", "2", "--device", "cpu")
    qsae("evaluate", found["each"], "--eval", "sparsity", "--device", "cpu")
    return found


@pytest.fixture
def copies(runs, tmp_path):
    """Runs that a test may damage."""
    return {name: shutil.copytree(run, tmp_path / "runs" / name / "1" / "8") for name, run in runs.items()}


def drawn(folder, name):
    return ET.parse(folder / f"{name}.svg").getroot()


def words(root):
    return root.find(f"{SVG}desc").text


def test_files_of_one_run_are_beside_it_and_listed(copies):
    result = qsae("plot", copies["four"], "--format", "svg")
    folder = copies["four"] / "plots"
    names = ["loss", "fvu", "l0", "dead", "density", "activations"]
    assert result.stdout.split("\n")[:-1] == [str(folder / f"{name}.svg") for name in names]
    assert sorted(file.name for file in folder.iterdir()) == sorted(f"{name}.svg" for name in names)
    assert result.stderr == ""
    said = words(drawn(folder, "fvu"))
    log = [json.loads(line) for line in (copies["four"] / "metrics" / "log.jsonl").read_text().splitlines()]
    assert f"four: {len(log)} values, from {log[0]['fvu']:.4g} at {log[0]['step']}" in said
    assert f"four, float twin: {len(log)} values, from {log[0]['float_twin/fvu']:.4g}" in said
    assert "four, held out: " in said


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_both_formats_are_written_unless_one_is_asked_for(copies, tmp_path):
    found = json.loads(qsae("plot", copies["float"], "--out", tmp_path / "here", "--json").stdout)
    assert [name.rpartition("/")[2] for name in found["files"]] == [
        f"{name}.{form}" for name in ("loss", "fvu", "l0", "dead") for form in ("png", "svg")
    ]
    assert all((tmp_path / "here" / name.rpartition("/")[2]).stat().st_size > 500 for name in found["files"])
    assert (tmp_path / "here" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "no samples and no evaluation sparsity" in found["notes"][0]


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_a_name_that_a_png_cannot_show_is_said(copies):
    file = copies["float"] / "config.json"
    record = json.loads(file.read_text())
    record["run"]["name"] = "日本"
    file.write_text(json.dumps(record))
    result = qsae("plot", copies["float"])
    assert "loss.png: the font of PNG files lacks 日本; SVG files have the whole text" in result.stderr
    assert "日本" in (copies["float"] / "plots" / "loss.svg").read_text(encoding="utf-8")


def test_several_runs_lie_over_one_another(copies, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    qsae("plot", copies["four"], copies["float"], copies["each"], "--format", "svg")
    said = words(drawn(tmp_path / "plots", "l0"))
    for name in ("four:", "four, float twin:", "float:", "each, layer 1:", "each, layer 2:"):
        assert f" {name} " in said
    colors = {}  # of a name in a legend: that of the line or area before it
    for chart in ("l0", "density"):
        items = list(drawn(tmp_path / "plots", chart))
        for key, text in itertools.pairwise(items):
            if text.tag == f"{SVG}text" and key.get("stroke-width") == "1.75":
                colors.setdefault(text.text, set()).add(key.get("stroke"))
    assert {name: len(found) for name, found in colors.items() if "each" in name} == {
        "each, layer 1": 1, "each, layer 2": 1,
    }  # fmt: skip
    assert len({frozenset(found) for found in colors.values()}) == 5
    density = words(drawn(tmp_path / "plots", "density"))
    assert "four: values" in density
    assert "each, layer 1: values" in density
    assert "each, layer 2: values" in density
    activations = words(drawn(tmp_path / "plots", "activations"))
    assert "One group" not in activations
    assert "each" not in activations


def test_a_run_that_still_trains(copies):
    run = copies["float"]
    record = json.loads((run / "config.json").read_text())
    record["completed_at"] = None
    (run / "config.json").write_text(json.dumps(record))
    log = run / "metrics" / "log.jsonl"
    log.write_text(log.read_text()[:-30])
    result = qsae("plot", run, "--format", "svg")
    assert "its last line" not in result.stderr
    assert "the log's last line is not written to its end, and left out" in result.stderr
    assert "the run is not finished" in result.stderr
    assert "float: 3 values" in words(drawn(run / "plots", "loss"))


def test_what_is_not_there_is_said(copies):
    run = copies["four"]
    shutil.rmtree(run / "metrics")
    result = qsae("plot", run, "--format", "svg")
    assert [line.rpartition("/")[2] for line in result.stdout.split()] == ["density.svg", "activations.svg"]
    assert "there is no metrics/log.jsonl, so there are no curves" in result.stderr
    shutil.rmtree(run / "samples")
    result = qsae("plot", run, "--format", "svg", code=2)
    assert "there is nothing to draw" in result.stderr
    assert f"qsae samples {run}" in result.stderr


def test_what_is_damaged_is_said_and_the_rest_drawn(copies):
    (copies["four"] / "samples" / "samples.safetensors").write_bytes(b"nothing")
    result = qsae("plot", copies["four"], "--format", "svg")
    assert "its samples cannot be read" in result.stderr
    assert "loss.svg" in result.stdout
    assert "density.svg" not in result.stdout
    layer = copies["each"] / "evaluations" / "layers" / "1" / "sparsity" / "latents.safetensors"
    layer.write_bytes(layer.read_bytes()[:-100])
    result = qsae("plot", copies["each"], "--format", "svg")
    assert "its evaluation sparsity cannot be read (SafetensorError" in result.stderr
    assert "One group" not in words(drawn(copies["each"] / "plots", "density"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'RUN...'"),
        (["{float}", "--format", "gif"], "'gif' is no format of a picture; png and svg are"),
        (["{float}", "--format", ""], "'' is no format of a picture"),
        (["{float}/metrics"], "is no run's folder"),
        (["nowhere"], "is no run's folder"),
        (["{float}", "{float}"], "named twice"),
    ],
)
def test_wrong_arguments_are_answered(runs, arguments, message):
    result = qsae("plot", *(argument.format(**runs) for argument in arguments), code=2)
    assert message in result.stderr


def test_without_matplotlib_nothing_is_written_and_the_way_is_named(copies, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = qsae("plot", copies["float"], code=2)
    assert 'pip install "qsae-report[png]"' in result.stderr
    assert not (copies["float"] / "plots").exists()
    qsae("plot", copies["float"], "--format", "svg")


def test_it_starts_without_torch_and_without_matplotlib():
    code = "import sys, qsae_report.plot_command; print({'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
