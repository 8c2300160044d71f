"""What ``qsae quantize`` leaves when it fails, what it replaces, and how its record is read."""

from __future__ import annotations

import pathlib
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner
from qsae_compare.sweep import read_sweep

from qsae_cli.main import cli
from qsae_core.config.layers import read_layer
from qsae_core.errors import ConfigError, TrainingError
from qsae_core.plugins.records import load_plugins
from qsae_core.quantization import run as quantization_run
from qsae_core.results.files import read_json, write_json
from qsae_core.results.quantized import check_trained
from qsae_core.results.run import Run

TRAIN = (
    "train --sae topk --n-latents 32 --k 4 --data synthetic --preset tiny --steps 20 --batch-size 64 "
    "--eval-tokens 512 --eval-every 0 --statistics-tokens 256 --threads 1 --eval reconstruction --name float"
)
QUANTIZE = "quantize --quantizer rtn --n-bits 3 --tokens 256"
TUNED = f"{QUANTIZE} --finetune encoder --finetune-steps 20"


def qsae(line, *arguments):
    result = CliRunner().invoke(cli, [*shlex.split(line), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def refused(line, *arguments):
    """The error, as the command line shows it."""
    result = CliRunner().invoke(cli, [*shlex.split(line), *map(str, arguments)])
    assert result.exit_code == 2, result.output
    return result.output


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A results folder with a float run and the same, quantized and fine-tuned."""
    out = tmp_path_factory.mktemp("results")
    qsae(TRAIN, "--out", out)
    qsae(TUNED, "--out", out, "--name", "tuned", out / "float/synthetic/20")
    return out


@pytest.fixture
def out(made, tmp_path):
    return pathlib.Path(shutil.copytree(made, tmp_path / "results"))


def test_a_loss_that_is_not_finite_leaves_the_run_that_would_be_replaced(out):
    before = contents(out)
    source = out / "float/synthetic/20"
    text = refused(f"{TUNED} --lr 1e30 --overwrite", "--name", "tuned", "--out", out, source)
    assert f"{source}/checkpoints/final: the loss of coder is not finite" in text
    assert "next:    fine-tune with an lr below 1e+30" in text
    assert contents(out) == before
    assert sorted(p.name for p in (out / "tuned/synthetic").iterdir()) == ["20"]


def test_an_interrupt_leaves_no_half_written_run_and_says_so(out, monkeypatch):
    before = contents(out)

    def pressed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(quantization_run, "evaluate_coder", pressed)  # the artifact is written by then
    for name in ("tuned", "new"):
        text = refused(f"{TUNED} --overwrite", "--name", name, "--out", out, out / "float/synthetic/20")
        assert "interrupted; no half-written run is left" in text
        assert "next:    the same command begins again" in text
    assert contents(out) == before
    assert sorted(p.name for p in out.iterdir()) == ["float", "tuned"]


def test_sigterm_clears_away_as_ctrl_c_does(out):
    script = f"""
import os, signal, sys
from qsae_core.quantization import run as quantization_run
quantization_run.fit = lambda *arguments: os.kill(os.getpid(), {int(signal.SIGTERM)})
from qsae_cli.main import cli
cli({[*shlex.split(QUANTIZE), "--name", "new", "--out", str(out), str(out / "float/synthetic/20")]!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, "interrupted" in done.stderr) == (2, True), done.stderr
    assert sorted(p.name for p in out.iterdir()) == ["float", "tuned"]


def test_overwrite_replaces_a_run_by_a_complete_one(out):
    run = Run(out / "tuned/synthetic/20")
    (run.path / "notes.txt").write_text("of the old one")
    qsae(f"{TUNED} --overwrite", "--name", "tuned", "--out", out, out / "float/synthetic/20")
    assert run.finished
    assert run.record()["status"] == "finished"
    assert not (run.path / "notes.txt").exists()
    assert [p.name for p in run.path.parent.iterdir()] == ["20"]


@pytest.mark.parametrize("target", ["", "..", "float/synthetic/20/inside"])
def test_the_coder_that_is_quantized_is_never_replaced(out, target):
    """Its run's folder, one around it (the run goes to NAME/synthetic/20), one inside."""
    source = out / "float/synthetic/20"
    place, name = (out / target, "float")
    if target == "..":
        moved = out / "around/synthetic/20/copy"
        shutil.copytree(source / "checkpoints/final", moved)
        source, place, name = moved, out, "around"
    before = contents(out)
    text = refused(f"{TUNED} --overwrite", "--name", name, "--out", place, source)
    assert "the same place as the coder that is quantized" in text
    assert "allowed: another --name or --out" in text
    assert contents(out) == before


def test_a_folder_that_is_no_run_is_not_replaced(out):
    (out / "mine/synthetic/20").mkdir(parents=True)
    (out / "mine/synthetic/20/letter.txt").write_text("dear")
    line = f"{TUNED} --overwrite"
    text = refused(line, "--name", "mine", "--out", out, out / "float/synthetic/20")
    assert "is there already, and is no run" in text
    assert (out / "mine/synthetic/20/letter.txt").read_text() == "dear"


def test_a_half_written_run_of_before_is_told_as_what_can_be_done_with_it(out):
    half = Run(out / "tuned/synthetic/20")
    half.update_record(status="running", completed_at=None)
    half.metrics_file.unlink()
    text = refused(TUNED, "--name", "tuned", "--out", out, out / "float/synthetic/20")
    assert "allowed: --overwrite, another --name or --out\n" in text
    text = refused("compare", half.path)
    assert "make it again with --overwrite, or remove it" in text
    assert "--resume" not in text


def test_a_trained_run_without_a_state_is_not_told_to_resume(out):
    run = Run(out / "float/synthetic/20")
    run.update_record(completed_at=None)
    assert "--resume" not in refused(TRAIN, "--out", out)
    write_json(run.checkpoints / "step_00000010" / "state.json", {})
    assert "or --resume" in refused(TRAIN, "--out", out)
    run.metrics_file.unlink()
    assert f"qsae train --config {run.config_file} --resume" in refused("compare", run.path)


# --- the record


def recorded_command(text):
    (line,) = [line for line in text.splitlines() if "next:" in line]
    return line.partition("next:")[2].strip()


def test_a_record_of_quantizing_is_not_trained_from(out):
    config = out / "tuned/synthetic/20/config.json"
    text = refused("train --config", config)
    assert f"{config}: this is the record of a coder that was quantized after training" in text
    command = recorded_command(text)
    assert command.startswith("qsae quantize ")
    assert "--finetune encoder --finetune-steps 20" in command
    qsae(command.removeprefix("qsae "), "--name", "again", "--out", out, "--device", "cpu")
    # the record names the fixture's own float run, of which the one in this folder is a copy
    again, before = (
        read_json(out / name / "synthetic/20/metrics.json")["coders"]["coder"] for name in ("again", "tuned")
    )
    assert again["evaluations"] == before["evaluations"]
    assert again["artifact"]["bits_per_weight"] == before["artifact"]["bits_per_weight"]


def test_records_that_do_not_say_it_are_known_by_their_metrics(out):
    run = Run(out / "tuned/synthetic/20")
    record = run.record()
    del record["quantized_from"]
    write_json(run.config_file, record)
    assert "qsae quantize " in refused("train --dry-run --config", run.config_file)
    check_trained(read_layer(out / "float/synthetic/20/config.json"))


def test_a_sweep_does_not_begin_with_a_record_of_quantizing(out):
    (out / "sweep.yaml").write_text("base: tuned/synthetic/20/config.json\ngrid: {sparsity.k: [2]}\n")
    with pytest.raises(ConfigError, match="quantized after training"):
        read_sweep(out / "sweep.yaml", load_plugins().registry)


SWEEP = """
base: float/synthetic/20/config.json
variants: {float: {quantizer: none}}
quantized:
  tuned: {of: float, quantizer: {use: rtn, n_bits: 3}, tokens: 256, finetune: encoder, finetune_steps: 20}
"""


def test_a_sweep_knows_how_its_runs_were_quantized(out):
    (out / "sweep.yaml").write_text(SWEEP)
    target = out / "sweep"
    shutil.copytree(out / "tuned", target / "tuned-seed0")
    planned = read_sweep(out / "sweep.yaml", load_plugins().registry, out=target)[1]
    assert planned.state == "finished"
    run = Run(target / "tuned-seed0/synthetic/20")
    record = run.record()
    del record["quantized_from"]  # as older runs are
    write_json(run.config_file, record)
    assert read_sweep(out / "sweep.yaml", load_plugins().registry, out=target)[1].state == "finished"
    run.metrics_file.write_text("{}")
    with pytest.raises(TrainingError, match="how it is quantized"):
        read_sweep(out / "sweep.yaml", load_plugins().registry, out=target)


# --- options and what is printed


@pytest.mark.parametrize("option", ["--finetune-steps 150", "--lr 0.5"])
def test_options_of_fine_tuning_need_fine_tuning(out, option):
    text = refused(f"{QUANTIZE} {option}", "--out", out / "new", out / "float/synthetic/20")
    assert f"{option.partition(' ')[0]}: nothing is fine-tuned without --finetune" in text
    assert "add --finetune encoder" in text
    assert not (out / "new").exists()


def test_values_before_are_told_to_be_those_of_the_masters(out):
    stored = out / "packed/synthetic/20"
    qsae(f"{TRAIN} --quantizer ste --n-bits 1 --save-float --no-compare-float --name packed --out", out)
    text = qsae(QUANTIZE, "--name", "anew", "--out", out, stored)
    before = read_json(out / "anew/synthetic/0/metrics.json")["quantized_from"]["evaluations"][
        "reconstruction"
    ]
    assert f"fvu: {before['fvu']:.4f} before (float masters), " in text
    assert "before (" not in qsae(QUANTIZE, "--name", "other", "--out", out, out / "float/synthetic/20")
