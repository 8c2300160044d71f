"""What SAELens and circuit-tracer make of files of Gemma Scope, beside what is made of them here.

The folders were written by ``write_golden.py``, whose cases say which of the two computed them.
"""

from __future__ import annotations

import pathlib

import numpy
import pytest
import torch

from qsae_core.conformance import check_golden
from qsae_core.reading import safetensors_tensors

GOLDEN = pathlib.Path(__file__).parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir())


def form_of(folder: pathlib.Path) -> str:
    (repository,) = (folder / "checkpoint").iterdir()
    return "gemma-scope-2" if repository.name.startswith("gemma-scope-2-") else "gemma-scope"


@pytest.mark.parametrize("case", CASES)
def test_golden(case):
    check_golden(GOLDEN / case, form_of(GOLDEN / case))


def test_every_variant_is_there():
    assert len(CASES) == 17


def test_saelens_forgets_b_dec_of_embedding_saes():
    """Its W_enc / sqrt(d) and W_dec sqrt(d) are for sqrt(d) times the embedding's rows, and so b_dec should
    be sqrt(d) times as large; what it reconstructs of a row, x, is off by (1 - 1 / sqrt(d)) b_dec."""
    expected = safetensors_tensors(GOLDEN / "embedding" / "expected.safetensors")
    (file,) = (GOLDEN / "embedding").rglob("params.npz")
    with numpy.load(file) as arrays:
        b_dec, W_dec = (torch.from_numpy(arrays[name]) for name in ("b_dec", "W_dec"))
    published = expected["latents"] @ W_dec + b_dec
    torch.testing.assert_close(expected["reconstruction"], published)
    off = (published - expected["saelens"]).mean(0)
    torch.testing.assert_close(off, (1 - 1 / 4) * b_dec)  # d is 16
    assert b_dec.abs().min() > 0.05
