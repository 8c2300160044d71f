"""What is read of a run's log, whole or not."""

from __future__ import annotations

import json

import pytest
from qsae_report.training_log import Member, read_training_log

from qsae_core.errors import ArtifactError

MEASURES = ("loss", "fvu", "l0")


def written(folder, *lines, end="\n"):
    (folder / "metrics").mkdir(exist_ok=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metrics" / "log.jsonl").write_text(text + end, encoding="utf-8")


def test_measures_of_each_coder_by_step(tmp_path):
    written(
        tmp_path,
        {
            "step": 5,
            "loss": 3.0,
            "loss/mse": 2.0,
            "loss/l0": 1.0,
            "fvu": 0.5,
            "lr": 0.1,
            "float_twin/fvu": 0.25,
        },
        {"step": 10, "loss": None, "fvu": 0.25, "3/fvu": 0.125, "float_twin/3/fvu": 0.0, "3/loss/l0": 9.0},
    )
    log = read_training_log(tmp_path, MEASURES)
    assert log.values == {
        "loss": {Member(): {5: 3.0, 10: None}},
        "fvu": {
            Member(): {5: 0.5, 10: 0.25},
            Member(twin=True): {5: 0.25},
            Member(layer="3"): {10: 0.125},
            Member(True, "3"): {10: 0.0},
        },
    }
    assert log.notes == []


def test_a_line_that_is_being_written_is_left_out_and_said(tmp_path):
    written(tmp_path, {"step": 1, "fvu": 0.5}, '{"step": 2, "fv', end="")
    log = read_training_log(tmp_path, MEASURES)
    assert log.values == {"fvu": {Member(): {1: 0.5}}}
    assert log.notes == ["the log's last line is not written to its end, and left out"]


def test_damaged_lines_are_counted(tmp_path):
    written(
        tmp_path, {"step": 1, "fvu": 0.5}, "{", {"step": 3, "fvu": 0.25}, {"no": "step"}, "7", {"step": True}
    )
    log = read_training_log(tmp_path, MEASURES)
    assert log.values["fvu"] == {Member(): {1: 0.5, 3: 0.25}}
    assert log.notes == ["4 lines of the log are no JSON with a step, and left out"]
    written(tmp_path, {"step": 1, "fvu": 0.5}, "\x00" * 20, {"step": 3})
    assert read_training_log(tmp_path, MEASURES).notes == [
        "line 2 of the log is no JSON with a step, and left out"
    ]


def test_what_is_no_number_is_undefined(tmp_path):
    written(tmp_path, '{"step": 1, "fvu": NaN, "loss": Infinity, "l0": "many"}')
    log = read_training_log(tmp_path, MEASURES)
    assert [log.values[name][Member()][1] for name in MEASURES] == [None, None, None]


def test_of_a_step_that_is_there_twice_the_last_one_counts(tmp_path):
    written(tmp_path, {"step": 1, "fvu": 0.5}, {"step": 2, "fvu": 0.4}, {"step": 2, "fvu": 0.3})
    assert read_training_log(tmp_path, MEASURES).values["fvu"][Member()] == {1: 0.5, 2: 0.3}


def test_without_a_log_there_are_no_curves_and_that_is_said(tmp_path):
    log = read_training_log(tmp_path, MEASURES)
    assert (log.values, log.held_out) == ({}, {})
    assert log.notes == ["there is no metrics/log.jsonl, so there are no curves"]


def test_a_log_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "metrics" / "log.jsonl").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_training_log(tmp_path, MEASURES)


def test_held_out_measurements_of_each_coder(tmp_path):
    written(tmp_path, {"step": 1, "fvu": 0.5})
    for step, text in (
        (
            2,
            json.dumps(
                {"coder": {"fvu": 0.5, "mse": 1.0}, "float_twin": {"fvu": 0.25}, "coder/3": {"l0": 8}}
            ),
        ),
        (4, json.dumps({"coder": {"fvu": None}})),
        (6, "{"),
    ):
        (tmp_path / "metrics" / f"step_{step:08d}.json").write_text(text)
    log = read_training_log(tmp_path, MEASURES)
    assert log.held_out == {
        "fvu": {Member(): {2: 0.5, 4: None}, Member(twin=True): {2: 0.25}},
        "l0": {Member(layer="3"): {2: 8.0}},
    }
    assert log.notes == ["step_00000006.json cannot be read, and is left out"]
