"""Matching and directions are those of the evaluation ``similarity``, line by line."""

from __future__ import annotations

import pathlib

import pytest

HERE = pathlib.Path(__file__).resolve().parents[1] / "qsae_evaluation_stability"
THERE = HERE.parents[1] / "qsae-evaluation-similarity" / "qsae_evaluation_similarity"


@pytest.mark.skipif(not THERE.exists(), reason="the other plugin's source is not beside this one's")
@pytest.mark.parametrize("file", ["matching.py", "directions.py", "means.py", "others.py"])
def test_both_have_the_same(file: str) -> None:
    assert (HERE / file).read_text() == (THERE / file).read_text()
