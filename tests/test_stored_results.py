"""What an evaluation found, on disk and on screen."""

from __future__ import annotations

import csv
import json
import math
import pathlib

import pytest
import torch
from safetensors.torch import load_file

from qsae_core.contracts import Result, Table
from qsae_core.errors import ArtifactError, PluginError, QsaeError
from qsae_core.evaluation.stored import load_result, load_results, save_result

RESULT = Result(
    values={"score": 0.75, "undefined": None},
    chance={"score": 0.5},
    baseline={"score": 0.9},
    uncertainty={"score": 0.01},
    per_latent={"mass": torch.tensor([0.25, math.nan, 0.75])},
    tables={"largest": Table(("latent", "token", "mass"), [(2, "a,b", 0.75), (0, None, 0.25)])},
)
ABOUT = {"evaluation": "demo", "version": 3, "options": {"top": 2}}


def test_every_file_is_what_its_name_says(tmp_path: pathlib.Path) -> None:
    save_result(tmp_path / "demo", RESULT, ABOUT)
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [
        "largest.csv",
        "latents.safetensors",
        "result.json",
    ]
    record = json.loads((tmp_path / "demo" / "result.json").read_text())
    assert record["values"] == {"score": 0.75, "undefined": None}
    assert (record["version"], record["options"]) == (3, {"top": 2})
    assert (record["per_latent"], record["tables"]) == (["mass"], ["largest"])
    column = load_file(tmp_path / "demo" / "latents.safetensors")["mass"]
    assert column.tolist()[::2] == [0.25, 0.75]
    assert column[1].isnan()
    rows = list(csv.reader((tmp_path / "demo" / "largest.csv").open()))
    assert rows == [["latent", "token", "mass"], ["2", "a,b", "0.75"], ["0", "", "0.25"]]


def test_it_reads_as_it_was(tmp_path: pathlib.Path) -> None:
    save_result(tmp_path / "demo", RESULT, ABOUT)
    read, about = load_result(tmp_path / "demo")
    assert about == {**ABOUT, "files": []}
    assert (read.values, read.chance, read.baseline) == (RESULT.values, RESULT.chance, RESULT.baseline)
    assert [list(row) for row in read.tables["largest"].rows] == [[2, "a,b", 0.75], [0, None, 0.25]]
    assert torch.equal(read.per_latent["mass"].nan_to_num(), RESULT.per_latent["mass"].nan_to_num())
    assert load_results(tmp_path).keys() == {"demo"}
    assert load_results(tmp_path / "nothing") == {}


def test_text_stays_text(tmp_path: pathlib.Path) -> None:
    """Labels that read as numbers, cells longer than the csv module takes by itself, half a character."""
    rows = [[1, "1.50", "x" * 200_000, 3], [2, "1e5", None, "three"], [3, "NaN", "\ud800", None]]
    table = Table(("latent", "label", "text", "either"), rows)
    save_result(tmp_path / "demo", Result(values={}, tables={"t": table}), ABOUT)
    (found,) = load_result(tmp_path / "demo")[0].tables.values()
    rows[2][2] = "\\ud800"
    assert [list(row) for row in found.rows] == rows


def test_why_values_are_missing_is_stored_too(tmp_path: pathlib.Path) -> None:
    result = Result({"score": None}, reason="two of four judges answered", failed=True)
    save_result(tmp_path / "it", result, {})
    found, about = load_result(tmp_path / "it")
    assert (found.reason, found.failed) == ("two of four judges answered", True)
    assert not {"reason", "failed"} & about.keys()


def test_files_that_it_writes_itself(tmp_path: pathlib.Path) -> None:
    result = Result({"score": 1.0}, files={"examples.bin": lambda path: path.write_bytes(b"as it is")})
    save_result(tmp_path / "demo", result, ABOUT)
    assert (tmp_path / "demo" / "examples.bin").read_bytes() == b"as it is"
    read, about = load_result(tmp_path / "demo")
    assert (about["files"], read.files) == (["examples.bin"], {})


def test_a_file_that_fails_leaves_the_older_result(tmp_path: pathlib.Path) -> None:
    def failing(path: pathlib.Path) -> None:
        path.write_text("half")
        raise OSError("the disk")

    save_result(tmp_path / "demo", RESULT, ABOUT)
    with pytest.raises(QsaeError, match="the disk"):
        save_result(tmp_path / "demo", Result({}, files={"examples.bin": failing}), ABOUT)
    assert load_result(tmp_path / "demo")[0].values == RESULT.values


def test_a_newer_one_takes_the_place_of_an_older_one(tmp_path: pathlib.Path) -> None:
    save_result(tmp_path / "demo", RESULT, ABOUT)
    save_result(tmp_path / "demo", Result({"score": 0.5}), ABOUT)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Result(tables={"../x": Table(("a",), [])}), "a table is named '../x'"),
        (Result(per_latent={"": torch.zeros(2)}), "a column is named ''"),
        (Result(files={"../x": lambda path: None}), "a file is named '../x'"),
        (Result(files={"result.json": lambda path: None}), "named 'result.json', which another one is"),
        (Result({"a": 1.0}, baseline={"b": 0.0}), "baseline of 'b', which is no value"),
        (Result(tables={"t": Table(("a", "b"), [(1, 2), (3,)])}), "a row of table 't' does not fit"),
        (Result(per_latent={"a": torch.zeros(2), "b": torch.zeros(3)}), r"the shapes \[\(2,\), \(3,\)\]"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path: pathlib.Path, result: Result, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        save_result(tmp_path / "demo", result, ABOUT)
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("file", ["largest.csv", "latents.safetensors"])
def test_what_was_damaged_is_refused(tmp_path: pathlib.Path, file: str) -> None:
    save_result(tmp_path / "demo", RESULT, ABOUT)
    (tmp_path / "demo" / file).write_bytes(b"")
    with pytest.raises(ArtifactError, match="does not hold a whole result"):
        load_result(tmp_path / "demo")
