"""The words for edits and positions, and edits as a file."""

from __future__ import annotations

import json

import pytest
from qsae_splice.edits import DirectionEdit, Edit
from qsae_splice.grammar import Named, read_ablated, read_edit, read_named
from qsae_splice.positions import Positions, read_positions
from qsae_splice.scales import Scales
from qsae_splice.spec import Spec, read_spec

from qsae_core import QsaeError
from qsae_core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("123=2max", Edit(123, "set", 2.0, "max")),
        ("123=2", Edit(123, "set", 2.0, "max")),
        ("77:add=0.3norm", Edit(77, "add", 0.3, "norm")),
        ("77:add=-.5", Edit(77, "add", -0.5, "norm")),
        ("7:scale=0", Edit(7, "scale", 0.0)),
        ("7:cap=1e-3raw", Edit(7, "cap", 0.001, "raw")),
        ("7:set:active=2sd", Edit(7, "set", 2.0, "sd", active=True)),
        ("7:floor=1raw@generated", Edit(7, "floor", 1.0, "raw", "generated")),
        ("12/7=1max@-4:", Edit(7, "set", 1.0, "max", "-4:", layer="12")),
        ("7=1max@token:/a@b=c/", Edit(7, "set", 1.0, "max", "token:/a@b=c/")),
    ],
)
def test_what_the_command_line_says(text: str, expected: Edit) -> None:
    assert read_edit(text) == expected
    assert read_edit(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat:add=0.3norm", DirectionEdit("cat", "add", 0.3, "norm")),
        ("cat:add=-2", DirectionEdit("cat", "add", -2.0, "norm")),
        ("_c.a-t:project-out", DirectionEdit("_c.a-t", "project-out")),
        (
            "1.mlp_out/cat:project-out@generated",
            DirectionEdit("cat", "project-out", None, None, "generated", "1.mlp_out"),
        ),
    ],
)
def test_directions_on_the_command_line(text: str, expected: DirectionEdit) -> None:
    assert read_edit(text) == expected
    assert read_edit(str(expected)) == expected


def test_names_of_directions() -> None:
    assert read_named("cat=a=b.npy:3") == Named("cat", "a=b.npy:3")
    for text in ("cat", "3=a.npy", "=a.npy", "cat="):
        with pytest.raises(ConfigError, match="names no direction"):
            read_named(text)


def test_positions_that_an_edit_does_not_name() -> None:
    assert read_edit("7=1raw", "last").positions == "last"
    assert read_edit("7=1raw@prompt", "last").positions == "prompt"
    assert read_ablated("5", "generated") == Edit(5, "ablate", positions="generated")
    assert read_ablated("9/5@2:4") == Edit(5, "ablate", positions="2:4", layer="9")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("123", "'123' is no edit"),
        ("-3=1raw", "'-3=1raw' is no edit"),
        ("7=raw", "'7=raw' is no edit"),
        ("7:ad=1raw", "unknown operation 'ad'; did you mean 'add'"),
        ("7=1mx", "unknown unit 'mx'; did you mean 'max'"),
        ("7:scale=2max", "scale takes no unit, not 'max'"),
        ("7:ablate=2", "ablate takes no value"),
        ("7=1e999raw", "the value is inf"),
        ("7=1raw@here", "there are no positions 'here'"),
        ("7=1raw@:", "there are no positions ':'"),
        ("7=1raw@token:/(/", "no regular expression"),
        ("cat:set=1raw", "unknown operation 'set'"),
        ("cat:add", "add takes a value"),
        ("cat:project-out=1", "project-out takes no value"),
        ("cat:add=1max", "max is of activations, and a direction has none"),
        ("cat:add=1mx", "unknown unit 'mx'"),
        ("cat=1raw", "'cat=1raw' is no edit"),
        ("7:ablate", "'7:ablate' is no edit"),
    ],
)
def test_what_is_no_edit(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_edit(text)
    assert message in error.value.what
    assert error.value.allowed


def test_an_edit_without_its_value() -> None:
    with pytest.raises(ConfigError, match="set takes a value"):
        Edit(3)
    with pytest.raises(ConfigError, match="counted from 0"):
        Edit(-1, "ablate")


def test_positions() -> None:
    assert read_positions("3:7") == Positions("range", 3, 7)
    assert read_positions("-4:") == Positions("range", -4, None)
    assert read_positions(":-1") == Positions("range", None, -1)
    found = read_positions("token:/ the$/")
    assert found.pattern is not None
    assert found.pattern.search(" the")


def test_a_spec_is_read_as_it_was_written(tmp_path) -> None:
    edits = (Edit(3, "set", 2.0, "max", "generated", active=True), Edit(5, "ablate", layer="9"))
    edits = (*edits, DirectionEdit("cat", "project-out"), DirectionEdit("cat", "add", 0.5))
    scales = {"9": {"largest": {}, "sd": {}, "norm": 1.0, "n_tokens": 8}}
    spec = Spec(edits, "replace", scales, {"cat": [0.1, -3.0]})
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(spec.to_json()))
    assert read_spec(file) == spec


def test_a_spec_of_version_1(tmp_path) -> None:
    """As the first version wrote it: no directions, and one norm as a number."""
    scales = {"": {"largest": {"3": 2.0}, "sd": {"3": 0.5}, "norm": 4.0, "n_tokens": 8}}
    edit = {"latent": 3, "op": "add", "value": 1.0, "unit": "norm", "positions": "all", "active": False}
    old = {"format": "qsae-splice", "format_version": 1, "mode": "delta", "edits": [edit], "scales": scales}
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(old))
    found = read_spec(file)
    assert found.edits == (Edit(3, "add", 1.0, "norm"),)
    assert Scales.from_json(found.scales[""], "spec").norms == (4.0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is no spec"),
        ({"format_version": 3}, "is of version 3"),
        ({"directions": [1]}, "no directions"),
        ({"edits": [{"direction": "cat", "op": "set", "value": 1}]}, "unknown operation 'set'"),
        ({"edits": [{"direction": 3, "op": "add", "value": 1}]}, "is no edit"),
        ({"modes": 1}, "unknown keys ['modes']"),
        ({"mode": "add"}, "has no mode"),
        ({"edits": [{"latent": 1, "op": "ablate", "size": 3}]}, "is no edit"),
        ({"edits": [{"latent": 1, "op": "set", "value": 1, "unit": "metres"}]}, "unknown unit 'metres'"),
        ({"edits": [{"latent": 1, "op": "set", "value": "much"}]}, "is no edit"),
    ],
)
def test_what_is_no_spec(change, message, tmp_path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps({**Spec(()).to_json(), **change}))
    with pytest.raises(QsaeError) as error:
        read_spec(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)


def test_a_spec_that_is_not_there(tmp_path) -> None:
    with pytest.raises(QsaeError, match="no such file"):
        read_spec(tmp_path / "none.json")
