"""``qsae evaluate --level`` and ``--all-levels`` on small real runs."""

from __future__ import annotations

import itertools
import json
import shlex

import pytest
from click.testing import CliRunner

from qsae_cli.main import cli
from qsae_core.artifact import artifact, places

SMALL = (
    "--n-latents 64 --data synthetic --preset tiny --steps 60 --batch-size 256 --eval-tokens 2048 "
    "--eval-every 0 --statistics-tokens 512 --threads 1 --eval reconstruction --no-compare-float --out"
)


def qsae(line, *arguments, code=0):
    result = CliRunner().invoke(cli, [*shlex.split(line), *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(
    scope="module", params=["--sae matryoshka --k 4", "--sae topk --k 4 --quantizer.n-bits 4 --quantizer ste"]
)
def run(request, tmp_path_factory):
    """A coder of nested groups, and one of bit planes."""
    out = tmp_path_factory.mktemp("results")
    qsae(f"train {request.param} {SMALL}", out)
    return next(out.rglob("metrics.json")).parent


def test_all_levels_improve_and_read_more_bytes(run):
    levels = json.loads(qsae("evaluate --all-levels --json", run).stdout)
    assert [entry["level"] for entry in levels] == list(range(1, len(levels) + 1))
    assert len(levels) in (4, 8)
    fvus = [entry["evaluations"]["reconstruction"]["fvu"] for entry in levels]
    assert all(fine <= coarse * 1.001 for coarse, fine in itertools.pairwise(fvus))
    assert fvus[-1] < fvus[0]
    sizes = [entry["artifact"]["bytes"] for entry in levels]
    assert sizes == artifact.level_bytes(places.artifact_folder(run))
    assert sizes == sorted(set(sizes))


def test_a_table_of_levels_is_not_kept(run, tmp_path):
    result = CliRunner().invoke(cli, ["evaluate", str(run), "--all-levels", "--out", str(tmp_path / "x")])
    assert result.exit_code == 2
    assert "--all-levels prints a table and keeps nothing" in result.output


def test_the_table_says_that_bytes_are_those_that_are_read(run):
    assert "bytes read" in qsae("evaluate --all-levels", run).stdout
    assert ", level 2: " in qsae("evaluate --level 2", run).stdout
    assert "bytes read" not in qsae("evaluate", run).stdout


def test_one_level_is_that_of_the_table_and_the_last_one_is_the_coder(run):
    levels = json.loads(qsae("evaluate --all-levels --json", run).stdout)
    second = json.loads(qsae("evaluate --level 2 --json", run).stdout)
    assert second == levels[1]
    whole = json.loads(qsae("evaluate --json", run).stdout)
    assert whole["evaluations"] == levels[-1]["evaluations"]
    assert "level 2" in qsae("evaluate --all-levels", run).stdout


def test_a_level_that_is_not_there(run):
    result = CliRunner().invoke(cli, ["evaluate", str(run), "--level", "9"])
    assert "level 9 does not exist" in str(result.exception) or "level 9 does not exist" in result.output
    assert result.exit_code != 0
    both = CliRunner().invoke(cli, ["evaluate", str(run), "--level", "1", "--all-levels"])
    assert "cannot be given together" in both.output
