"""Thousands of damaged and malicious files for every reader: a clear error or the contents."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

INPUTS = {"FORMATS": 8000, "ARTIFACTS": 3000, "FIELDS": 800}


def read(what: str, inputs: int, seed: int) -> dict:
    """What ``tests/hostile.py`` says."""
    script = pathlib.Path(__file__).parent / "hostile.py"
    command = [sys.executable, str(script), what, str(inputs), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("what", INPUTS)
def test_whatever_is_in_a_file(what):
    found = read(what, INPUTS[what], seed=0)
    assert found["faults"] == []
    assert found["inputs"] == INPUTS[what]
    assert found["refused"] > found["inputs"] / 3  # and not all is refused: what is changed may not matter
    assert found["read"] > 0
