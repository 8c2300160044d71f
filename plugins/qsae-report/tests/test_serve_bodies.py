"""Bodies of requests: what is asked, and what is refused. No language model is needed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import qsae_report
from qsae_report.serve.bodies import Continuation, parsed, read_continuation, read_text
from qsae_splice import Edit
from qsae_splice.edits import OPERATIONS, UNITS, USUAL_UNIT

from qsae_core.errors import ConfigError


def test_a_text() -> None:
    assert read_text(parsed(b'{"text": "a \\u20ac"}')) == "a €"


def test_a_continuation() -> None:
    edit = {"latent": 3, "op": "cap", "value": 2, "unit": "raw", "positions": "0:4", "active": True}
    body = {"prompt": "a", "edits": [edit], "max_new_tokens": 7, "temperature": 1, "seed": 5}
    expected = Edit(3, "cap", 2, "raw", "0:4", active=True)
    assert read_continuation(body) == Continuation("a", (expected,), 7, 1.0, 5)
    assert read_continuation({"prompt": "a"}) == Continuation("a")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b'{"text": NaN}', "NaN is no number of JSON"),
        (b"[" * 60000, "no JSON"),
        (b"9" * 5000, "no JSON"),
        (b"[]", "the body is a list"),
        (b"null", "the body is not there"),
    ],
)
def test_bodies_that_are_no_object(body, what) -> None:
    with pytest.raises(ConfigError, match=what):
        parsed(body)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({}, "text is not there"),
        ({"text": 3}, "text is a number"),
        ({"text": ""}, "the text is empty"),
        ({"text": "\ud800"}, "half a character"),
        ({"text": "a", "txt": "b"}, "there is no field 'txt'; did you mean 'text'"),
    ],
)
def test_texts_that_are_none(body, what) -> None:
    with pytest.raises(ConfigError, match=what):
        read_text(body)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"edits": {}}, "edits is an object"),
        ({"edits": [3]}, "3 is no edit"),
        ({"edits": [{"latent": 1, "op": "set", "value": "2"}]}, "is no edit"),
        ({"edits": [{"latent": 1, "op": ["set"], "value": 2}]}, "is no edit"),
        ({"edits": [{"latent": 1, "op": "set"}]}, "set takes a value"),
        ({"edits": [{"latent": 1, "op": "set", "value": 1e7}]}, "the value is 1e\\+07"),
        ({"edits": [{"latent": 1, "op": "set", "value": 1, "positions": "here"}]}, "no positions 'here'"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": json.loads("1e999")}, "temperature is inf"),
        ({"temperature": True}, "temperature is true or false"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"seed": "1"}, "seed is a text"),
        ({"tokens": 3}, "there is no field 'tokens'"),
    ],
)
def test_continuations_that_are_none(fields, what) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        read_continuation({"prompt": "a", **fields})
    assert caught.value.where
    assert caught.value.allowed or "is no edit" in what


def test_the_form_offers_every_operation_and_unit() -> None:
    """With the unit that is usual, which the script sets."""
    package = Path(qsae_report.__file__).parent
    form = (package / "templates" / "try.html.j2").read_text()
    for name, known in (("op", OPERATIONS), ("unit", UNITS)):
        select = re.search(rf'<select data-edit="{name}">(.*?)</select>', form, re.DOTALL)
        assert select is not None
        assert set(re.findall(r'value="(\w+)"', select[1])) == set(known)
    script = (package / "static" / "steering.js").read_text()
    usual = dict(re.findall(r'(\w+): \[[\w.]+, (?:null|"(\w+)")\]', script))
    assert {op: unit or None for op, unit in usual.items()} == {op: USUAL_UNIT.get(op) for op in OPERATIONS}
