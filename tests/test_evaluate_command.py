"""``qsae evaluate`` as a user meets it: what it says before and after it measures, and what it keeps."""

from __future__ import annotations

import json
import pathlib
import shlex
import shutil

import pytest
import torch
from click.testing import CliRunner

from qsae_cli.main import cli
from qsae_core.errors import UnwritableError
from qsae_core.evaluation import evaluate as evaluating
from qsae_core.evaluation import kept
from qsae_core.evaluation.evaluate import Outcome
from qsae_core.evaluation.fuller import older_stays
from qsae_core.evaluation.stored import save_result

TRAIN = shlex.split(
    "train --sae topk --n-latents 32 --k 4 --data synthetic --preset tiny --quantizer ste "
    "--quantizer.n-bits 4 --steps 6 --batch-size 128 --eval-tokens 1024 --eval-every 0 "
    "--statistics-tokens 512 --threads 1 --eval reconstruction --device cpu --name it"
)


def qsae(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="qsae")
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    qsae(*TRAIN, "--out", folder)
    (config,) = folder.glob("it/*/*/config.json")
    return config.parent


@pytest.fixture
def run(trained, tmp_path):
    return pathlib.Path(shutil.copytree(trained, tmp_path / "it" / "synthetic" / "6"))


def stored(run, name, below="."):
    return json.loads((run / "evaluations" / below / name / "result.json").read_text())


def test_what_is_said_and_in_which_order(run):
    done = qsae("evaluate", run, "--eval", "reconstruction", "--eval", "sparsity", "--eval", "loss-recovered")
    first, on, kept, *passes = done.stderr.splitlines()
    assert first == f"evaluating {run}/checkpoints/final: 32 latents"
    assert on.startswith("on 1,024 tokens, of the endless held-out stream")
    assert kept == f"what is found is kept in {run}/evaluations"
    assert passes[0] == "pass 1, for reconstruction, sparsity"
    assert passes[1].startswith("pass 1: 1,024 tokens in ")
    assert passes[2] == "float twin: pass 1, for reconstruction, sparsity"
    lines = done.stdout.splitlines()
    at = [
        next(i for i, line in enumerate(lines) if line.startswith(begin))
        for begin in (
            f"{run}: ",
            "reconstruction ",
            "sparsity ",
            "not evaluated",
            "loss-recovered: ",
            "coder ",
        )
    ]
    assert at == sorted(at)
    assert any(line.startswith("topk (ste)") for line in lines[at[-1] :])
    assert any(line.startswith("full-precision twin") for line in lines[at[-1] :])
    assert lines[-2:] == [
        f"kept in {run}/evaluations",
        f"next: qsae samples {run} --model NAME --layer N --site SITE, then qsae report {run}",
    ]
    (run / "samples").mkdir()
    again = qsae("evaluate", run, "--eval", "sparsity").stdout.splitlines()
    assert again[-1] == f"next: qsae report {run}"


def test_a_result_of_more_tokens_stays_until_told_otherwise(run):
    fuller = stored(run, "reconstruction")
    assert fuller["n_tokens"] == 1024
    done = qsae("evaluate", run, "--eval", "reconstruction", "--eval", "sparsity", "--tokens", 256)
    stays = (
        "results of more tokens stay where they are: reconstruction (1,024); --overwrite puts these, of 256"
    )
    assert stays in done.stderr.split("pass 1")[0]  # before anything is measured
    assert stays in done.stdout
    assert stored(run, "reconstruction") == fuller
    assert stored(run, "sparsity")["n_tokens"] == 256  # nothing was there before
    assert "stay where" not in qsae("evaluate", run, "--eval", "sparsity", "--tokens", 512).output
    assert stored(run, "sparsity")["n_tokens"] == 512
    fewer = qsae("evaluate", run, "--eval", "sparsity", "--tokens", 128).stdout
    assert f"not kept: {run}/evaluations/sparsity has an older one" in fewer
    assert "all of it: " not in fewer
    assert stored(run, "reconstruction") == fuller  # it was not asked for
    qsae("evaluate", run, "--eval", "reconstruction", "--tokens", 256, "--overwrite")
    now = stored(run, "reconstruction")
    assert (now["n_tokens"], now["values"]["n_tokens"]) == (256, 256)


def test_a_result_that_failed_takes_no_place(run, monkeypatch):
    fuller = stored(run, "reconstruction")

    def failing(evaluation, accumulator, result):
        return Outcome(evaluation, result, "the judge is gone", failed=True)

    monkeypatch.setattr(evaluating, "_outcome", failing)
    done = qsae("evaluate", run, "--eval", "reconstruction", "--no-compare-float", code=2)
    assert "older results stay, since these failed: reconstruction (1,024)" in done.stdout
    assert stored(run, "reconstruction") == fuller


@pytest.mark.parametrize(
    ("record", "n_tokens", "failed", "stays"),
    [
        ({"n_tokens": 1024}, 1024, False, False),
        ({"n_tokens": 1024}, 1023, False, True),
        ({"n_tokens": 1024, "failed": True}, 1, False, False),
        ({"n_tokens": 1, "failed": False}, 1024, True, True),
        ({}, 1, False, False),
        (None, 1, True, False),
    ],
)
def test_what_stays(tmp_path, record, n_tokens, failed, stays):
    (tmp_path / "result.json").write_text("{" if record is None else json.dumps(record))
    assert (older_stays(tmp_path, n_tokens, failed=failed) is not None) == stays


def test_other_data_is_not_kept_and_that_is_said_first(run):
    done = qsae("evaluate", run, "--data.world-seed", 5, "--eval", "reconstruction")
    begins = done.stderr.split("pass 1")[0]
    assert "printed and not kept, since these are not the run's own data; --out DIR keeps it" in begins
    assert done.stdout.splitlines()[-1] == "not kept: --out DIR keeps all of it"
    final = run / "checkpoints" / "final"
    said = qsae("evaluate", final, "--eval", "reconstruction").stderr
    assert f"not kept, since {final} is no run's folder" in said
    assert stored(run, "reconstruction")["n_tokens"] == 1024


def test_a_folder_with_results_of_something_else_is_refused(run, tmp_path):
    kept = tmp_path / "kept"
    one = ["evaluate", run / "checkpoints" / "final", "--eval", "reconstruction", "--out", kept]
    qsae(*one)
    qsae(*one)  # the same once more
    for other, whose in (
        (["--data.world-seed", 5], "has results on the endless held-out stream"),
        ([], f"has results of the coder {run}/checkpoints/final"),
    ):
        path = one[1] if other else run / "checkpoints" / "float_twin"
        line = ["evaluate", path, *one[2:], *other]
        beside = ["evaluate", path, "--eval", "sparsity", *one[4:], *other]
        assert whose in qsae(*beside, code=2).stderr  # another evaluation, beside those of something else
        refused = qsae(*line, code=2).stderr
        assert whose in refused
        assert "pass 1" not in refused
        qsae(*line, "--overwrite")
        qsae(*one, "--overwrite")


def test_what_cannot_be_kept_is_known_at_once_or_shown_all_the_same(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    refused = qsae("evaluate", run, "--out", tmp_path / "file" / "x", code=2).stderr
    assert "file" in refused
    assert "pass 1" not in refused

    def full(folder, result, about):
        if folder.name == "reconstruction":
            raise UnwritableError("the disk is full", where=str(folder))
        return save_result(folder, result, about)

    monkeypatch.setattr(kept, "save_result", full)
    done = qsae(
        "evaluate", run, "--eval", "reconstruction", "--eval", "sparsity", "--no-compare-float", code=2
    )
    assert "the disk is full" in done.stderr
    assert "\nreconstruction" in done.stdout
    assert "\nsparsity" in done.stdout
    assert "kept in" not in done.stdout
    assert stored(run, "sparsity")["n_tokens"] == 1024


def test_other_rows_under_the_name_of_the_runs_own_are_not_kept_in_it(tmp_path):
    rows = torch.randn(3000, 8, generator=torch.Generator().manual_seed(1))
    torch.save(rows, tmp_path / "h.pt")
    options = shlex.split(
        "train --sae topk --n-latents 32 --k 4 --steps 4 --batch-size 128 --statistics-tokens 512 "
        "--threads 1 --eval reconstruction --eval-every 0 --device cpu --name it"
    )
    qsae(*options, "--data-path", tmp_path / "h.pt", "--out", tmp_path)
    (config,) = tmp_path.glob("it/*/*/config.json")
    own = stored(config.parent, "reconstruction")
    torch.save(rows.flip(0) + 1, tmp_path / "h.pt")
    done = qsae("evaluate", config.parent, "--eval", "reconstruction", "--eval", "sparsity")
    assert "not kept, since the run was not trained on this" in done.stderr
    assert "all 3,000 rows" in done.stderr
    assert stored(config.parent, "reconstruction") == own
    assert not (config.parent / "evaluations" / "sparsity").exists()


def test_a_baseline_is_made_where_results_go(run, tmp_path):
    out = tmp_path / "out"
    line = ["evaluate", run, "--eval", "reconstruction", "--baseline", "random"]
    qsae(*line, "--out", out)
    assert (out / "baselines" / "random" / "coder.json").is_file()
    assert not (run / "baselines").exists()
    qsae(*line)
    assert (run / "baselines" / "random" / "coder.json").is_file()


def test_the_float_twin_is_evaluated_as_in_training(run):
    at_the_end = stored(run, "reconstruction", "float_twin")
    done = json.loads(
        qsae("evaluate", run, "--eval", "reconstruction", "--eval", "sparsity", "--json").stdout
    )
    twin = stored(run, "reconstruction", "float_twin")
    assert twin["values"]["fvu"] == pytest.approx(at_the_end["values"]["fvu"], rel=1e-6)
    assert done["float_twin"]["evaluations"]["reconstruction"]["fvu"] == twin["values"]["fvu"]
    assert done["evaluations"]["reconstruction"]["fvu"] > twin["values"]["fvu"]
    assert stored(run, "sparsity", "float_twin")["coder_sha256"] != stored(run, "sparsity")["coder_sha256"]
    alone = json.loads(qsae("evaluate", run, "--no-compare-float", "--json").stdout)
    assert "float_twin" not in alone
    assert alone["evaluations"]["reconstruction"] == done["evaluations"]["reconstruction"]
    of_artifact = json.loads(qsae("evaluate", run / "checkpoints" / "final", "--json").stdout)
    assert "float_twin" not in of_artifact
