"""How results of evaluations are printed: compact blocks, and lines about progress."""

from __future__ import annotations

import math

import pytest
import torch

from qsae_cli import pass_progress
from qsae_cli.findings import number, print_layers, print_results
from qsae_cli.pass_progress import EvaluationProgress
from qsae_cli.summary import print_coders
from qsae_core.contracts import Result, Table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (0.0, "0"),
        (32885.0, "32,885"),
        (7, "7"),
        (-3.0, "-3"),
        (1245.87, "1,246"),
        (0.98364, "0.9836"),
        (3.041e-05, "3.041e-05"),
        (1e-113, "<1e-9"),
        (-8.9e-16, ">-1e-9"),
        (1e-9, "1e-09"),
    ],
)
def test_numbers(value, shown):
    assert number(value) == shown


WIDE = Table(tuple(f"a_rather_long_name_{i}" for i in range(9)), [[i] * 9 for i in range(20)])
FOUND = Result(
    {"score": 0.75, "n_tokens": 32885.0, "undefined": None, "low": 0.5},
    chance={"score": 1e-113},
    uncertainty={"score": 0.01},
    per_latent={"mass": torch.tensor([0.25, math.nan, 0.75, 0.5]), "none": torch.tensor([math.nan] * 4)},
    tables={"wide": WIDE, "empty": Table(("a",), []), "text": Table(("t",), [("word " * 30,)])},
    how="judged by rule",
)


def test_a_block(capsys, tmp_path):
    print_results({"demo": FOUND}, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ""
    assert lines[1].split("  ")[0] == "demo, judged by rule"
    assert lines[1].split()[4:] == ["value", "by", "chance", "standard", "error"]
    assert lines[2].split() == ["score", "0.75", "<1e-9", "0.01"]
    assert lines[3:6] == [
        "  n_tokens 32,885, low 0.5",
        "  not defined: undefined",
        "  per latent, medians: mass 0.5, none -",
    ]
    # columns of 20 characters and 2 between them: 5 are 108 of 110
    assert lines[6] == "  wide, 3 of 20 rows, 5 of 9 columns"
    assert [line.split() for line in lines[8:11]] == [["0"] * 5, ["1"] * 5, ["2"] * 5]
    assert lines[11] == "  empty: no rows"
    assert lines[12:15] == ["  text", "t", "word word word word word word word..."]
    assert lines[15] == f"all of it: {tmp_path / 'demo'}"
    assert len(lines) == 16


def test_values_of_others_stand_beside_where_they_differ(capsys):
    other = Result({"score": 0.5, "n_tokens": 32885.0, "low": 0.4})
    print_results({"demo": FOUND}, None, beside={"float twin": {"demo": other}})
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert rows["score"] == ["0.75", "<1e-9", "0.01", "0.5"]
    assert rows["low"] == ["0.5", "-", "-", "0.4"]
    assert rows["n_tokens"] == ["32,885"]  # the same of both
    assert "all of it" not in out


def test_layers_are_columns_as_far_as_they_fit(capsys, tmp_path):
    layers = {str(i): {"demo": Result({"score": i / 100, "undefined": None})} for i in range(30)}
    print_layers(layers, tmp_path)
    _, head, score, place = capsys.readouterr().out.splitlines()
    shown = head.split("  layer ")[1:]
    assert [s.strip() for s in shown] == [str(i) for i in range(len(shown))]
    assert len(head) <= 110 < len(head) + len("  layer 10")
    assert score.split()[:4] == ["score", "0", "0.01", "0.02"]
    assert place == f"{len(shown)} of 30 layers; all of them: {tmp_path / 'layers'}"


def entry(documents, **n_tokens):
    artifact = {"bits_per_weight": {}, "bytes": 8, "times_smaller": 1.0}
    measured = {"what": "the 34 held-out of the 686 documents of x", "warning": None, "documents": documents}
    return {
        "artifact": artifact,
        "measured": measured,
        "evaluations": {k: {"n_tokens": v} for k, v in n_tokens.items()},
    }


def test_documents_that_were_read_are_told_from_those_that_there_are(capsys):
    print_coders([("a", entry(11, r=300, ce=80)), ("twin", entry(11, r=300))], "")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("measured")]
    among = "documents, among the 34 held-out of the 686 documents of x"
    assert lines == [f"measured on 300 (r) and 80 (ce) vectors of 11 {among}"]
    print_coders([("a", entry(11, r=300)), ("other", entry(11, r=200)), ("one", entry(1, r=300))], "")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("measured")]
    assert lines[:2] == [f"measured on {n} vectors of 11 {among}" for n in (300, 200)]
    assert "vectors of 1 document, among" in lines[2]


def test_progress_has_names_and_the_time_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pass_progress.time, "monotonic", lambda: now[0])
    with EvaluationProgress("float twin") as watch:
        watch.read(1, ["reconstruction", "autointerp"], 0, 1000)
        for seconds, seen in ((5, 100), (20, 250), (60, 1015)):
            now[0] = seconds
            watch.read(1, ["reconstruction", "autointerp"], seen, 1000)
        watch.has_read(1, 1015)
        watch.works("reconstruction", 0, None)
        watch.has_worked("reconstruction")
        watch.works("autointerp", 0, None)
        for done in range(4):
            now[0] += 11
            watch.works("autointerp", done, 4)
        watch.has_worked("autointerp")
    # 250 of 1000 took 20 s, so the rest takes 60; one of four took 22 s, two 33 s, three 44 s
    assert capsys.readouterr().err.splitlines() == [
        "float twin: pass 1, for reconstruction, autointerp",
        "float twin: pass 1: 25%, 60 s left",
        "float twin: pass 1: 100%, 0 s left",
        "float twin: pass 1: 1,015 tokens in 60.0 s",
        "float twin: autointerp: 1 of 4, 66 s left",
        "float twin: autointerp: 2 of 4, 33 s left",
        "float twin: autointerp: 3 of 4, 15 s left",
        "float twin: autointerp: what follows from it took 44.0 s",
    ]
