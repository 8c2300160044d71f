"""``qsae runs`` where a run's files are damaged: it is listed as such, and the others as ever."""

from __future__ import annotations

import json
import pathlib
import shlex
import shutil
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from qsae_cli.main import cli

SMALL = (
    "--n-latents 32 --data synthetic --preset tiny --steps 4 --batch-size 128 --statistics-tokens 256 "
    "--eval-tokens 512 --eval-every 0 --threads 1 --eval reconstruction --no-compare-float --device cpu"
)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> pathlib.Path:
    """A results folder with one run, named whole."""
    out = tmp_path_factory.mktemp("results")
    line = f"train --sae topk --k 4 --name whole {SMALL} --out"
    result = CliRunner().invoke(cli, [*shlex.split(line), str(out)])
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def results(original, tmp_path) -> pathlib.Path:
    """A copy, with the same run once more under a name that comes before it: the one to damage."""
    out = pathlib.Path(shutil.copytree(original, tmp_path / "results"))
    shutil.copytree(out / "whole", out / "broken")
    return out


def file_of_broken(results: pathlib.Path, name: str) -> pathlib.Path:
    (file,) = results.glob(f"broken/*/*/{name}")
    return file


def listed(results: pathlib.Path) -> tuple[list[dict], str, str]:
    """The entries of ``--json``, the table's text, and what was said on stderr (of both the same)."""
    entries, table = (
        CliRunner().invoke(cli, ["runs", "--out", str(results), *more]) for more in (["--json"], [])
    )
    assert (entries.exit_code, table.exit_code) == (0, 0), entries.output
    assert entries.stderr == table.stderr
    return json.loads(entries.stdout), table.stdout, entries.stderr


DAMAGES = {
    "cut": (lambda text: text[: len(text) // 2], "is not valid JSON"),
    "empty": (lambda _: "", "is not valid JSON"),
    "list": (lambda _: "[]", "does not hold what qsae writes there (TypeError: "),
    "null": (lambda _: "null", "does not hold what qsae writes there (TypeError: "),
    "mapping": (lambda _: "{}", "does not hold what qsae writes there ("),
    "text": (lambda _: '"text"', "does not hold what qsae writes there (TypeError: "),
}


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file(results, name, damage):
    file = file_of_broken(results, name)
    change, what = DAMAGES[damage]
    file.write_text(change(file.read_text()))
    (broken, whole), table, said = listed(results)
    assert (broken["status"], whole["status"]) == ("damaged", "finished")
    assert broken["path"] == str(file.parent)
    assert broken["coders"] == (whole["coders"] if name == "config.json" else None)
    assert broken["sae"] == (None if name == "config.json" else "topk")
    assert f"qsae: note: {file}: {what}" in said
    assert said.count("\n") == 1
    _, first, second = table.splitlines()
    assert "  damaged  " in first
    assert "  finished  topk (none)  " in second


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"sae": None}),
        ("config.json", {"sae": "topk"}),
        ("config.json", {"status": None}),
        ("config.json", {"started_at": float("nan")}),
        ("metrics.json", {"coders": []}),
        ("metrics.json", {"coders": {}}),
        ("metrics.json", {"coders": {"coder": {"artifact": {"bytes": "many"}, "evaluations": {}}}}),
        ("metrics.json", {"coders": {"coder": {"artifact": {"bytes": 8}, "evaluations": [1]}}}),
        (
            "metrics.json",
            {"coders": {"coder": {"artifact": {"bytes": 8}, "evaluations": {"a": {"fvu": "x"}}}}},
        ),
        (
            "metrics.json",
            {"coders": {"coder": {"artifact": {"bytes": 8}, "evaluations": {"a": {"fvu": float("nan")}}}}},
        ),
    ],
)
def test_an_entry_of_another_type(results, name, values):
    file = file_of_broken(results, name)
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    (broken, whole), _, said = listed(results)
    assert (broken["status"], whole["status"]) == ("damaged", "finished")
    assert f"qsae: note: {file}: does not hold what qsae writes there (" in said


def test_both_files(results):
    for name in ("config.json", "metrics.json"):
        file_of_broken(results, name).write_text("{")
    (broken, _), _, said = listed(results)
    assert [broken[key] for key in ("status", "sae", "coders")] == ["damaged", None, None]
    assert [line.rpartition("; ")[2] for line in said.splitlines()] == ["the run is listed as damaged"] * 2


def unfinished(results, **record) -> None:
    file_of_broken(results, "metrics.json").unlink()
    file = file_of_broken(results, "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"completed_at": None} | record))


def test_a_run_that_goes_on_is_not_damaged(results):
    unfinished(results, status="running")  # by this very process
    (running, _), table, said = listed(results)
    assert (running["status"], running["sae"], running["coders"]) == ("running", "topk", None)
    assert said == ""
    assert "running" in table.splitlines()[1]


def test_a_run_whose_process_is_gone_is_not_called_running(results):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    here = socket.gethostname()
    unfinished(results, status="running", process={"host": here, "pid": process.pid})
    (lost, _), _, said = listed(results)
    assert (lost["status"], said) == ("lost: its process is gone", "")
    unfinished_elsewhere = {"host": f"not-{here}", "pid": process.pid}
    file = file_of_broken(results, "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"process": unfinished_elsewhere}))
    assert listed(results)[0][0]["status"] == "running"


def test_a_long_status_leaves_the_table_narrow(results):
    unfinished(results, status="failed: " + "of a very long message " * 9)
    (failed, _), table, _ = listed(results)
    assert len(failed["status"]) > 200
    assert f"  {failed['status'][:37]}...  topk" in table


def test_coders_in_no_run_are_listed_behind_the_runs(results):
    (run,) = results.glob("whole/*/*/")
    shutil.rmtree(results / "broken")
    alone = pathlib.Path(shutil.copytree(run / "checkpoints" / "final", results / "taken" / "over"))
    shutil.copytree(run / "evaluations", alone / "evaluations")
    (whole, over), table, said = listed(results)
    assert (over["path"], over["artifact"], over["status"], said) == (str(alone), str(alone), "stored", "")
    assert over["sae"] == whole["sae"] == "topk"
    values = (entry["coders"]["coder"]["evaluations"]["reconstruction"]["fvu"] for entry in (whole, over))
    assert next(values) == pytest.approx(next(values))
    assert over["coders"]["coder"]["artifact"]["bytes"] == whole["coders"]["coder"]["artifact"]["bytes"]
    assert table.splitlines()[-1].split()[:2] == [str(alone), "stored"]
    (alone / "coder.json").write_text("{")
    (_, over), _, said = listed(results)
    assert over["status"] == "damaged"
    assert said.endswith("the coder is listed as damaged\n")
