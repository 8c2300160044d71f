"""Files that dictionary_learning 0.1.0 wrote and computed with (``write_golden.py``)."""

from __future__ import annotations

import pathlib

import pytest

from qsae_core.conformance import check_golden

GOLDEN = pathlib.Path(__file__).parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir())


@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_the_library_does_and_is_written_again(case):
    check_golden(GOLDEN / case, "dictionary-learning")
