"""What a served coder takes and refuses. Shapes: B tokens, D width, F latents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import qsae_core
from qsae_cli.main import cli
from qsae_core.errors import DataError


@pytest.fixture(scope="module")
def coders(tmp_path_factory):
    """A matryoshka SAE of 64 latents, whole and as its second level, and a crosscoder of three layers."""
    out = tmp_path_factory.mktemp("runs")
    common = ["--n-latents", "64", "--k", "4", "--data", "synthetic", "--steps", "3", "--batch-size", "64"]
    common += ["--statistics-tokens", "256", "--eval-tokens", "256", "--threads", "1", "--no-compare-float"]
    for sae, own in {"matryoshka": [], "crosscoder": ["--data.layers", "3"]}.items():
        result = CliRunner().invoke(
            cli, ["train", "--sae", sae, *common, *own, "--out", str(out), "--name", sae]
        )
        assert result.exit_code == 0, result.output
    load = qsae_core.load
    nested, crossed = (next((out / n).glob("*/*/checkpoints/final")) for n in ("matryoshka", "crosscoder"))
    return load(nested), load(nested, level=2), load(crossed)


def test_codes_of_another_level_are_not_decoded(coders):
    whole, second, _ = coders
    codes = whole.encode(torch.randn(50, 64))
    assert int(codes.indices.max()) >= second.n_latents  # behind the last atom that it holds
    with pytest.raises(DataError, match=f"codes of 64 latents are decoded by a coder of {second.n_latents}"):
        second.decode(codes)
    with pytest.raises(DataError, match="the codes name latent"):
        second.decode(replace(codes, n_latents=second.n_latents))
    with pytest.raises(DataError, match="the codes name latent -1"):
        whole.decode(replace(codes, indices=-torch.ones_like(codes.indices)))


def test_what_is_no_code_is_not_decoded(coders):
    for coder in coders:
        with pytest.raises(
            DataError, match=r"SparseCodes, not torch.Tensor(.|\n)*next:    coder.encode\(x\)"
        ):
            coder.decode(torch.zeros(4, coder.n_latents))
    with pytest.raises(DataError, match="SparseCodes, not NoneType"):
        coders[0].decode(None)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(4, 63), r"shape \[4, 63\]"),
        (torch.zeros(4, 1), r"shape \[4, 1\]"),
        (torch.zeros(64), r"next:    x\[None\]"),
        (torch.zeros(()), r"shape \[\]"),
        (torch.zeros(4, 3, 64), r"floating-point tensor \[B, 64\]"),
        (torch.zeros(4, 64, dtype=torch.int64), r"torch.int64(.|\n)*x.float\(\)"),
        (np.zeros((4, 64)), r"not numpy.ndarray(.|\n)*torch.as_tensor\(x\)"),
        ([0.0] * 64, "not list"),
    ],
)
def test_what_is_no_batch_of_its_vectors_is_refused(coders, x, message):
    for call in (coders[0].encode, coders[0].reconstruct, lambda x: next(coders[0].reconstruct_stream([x]))):
        with pytest.raises(DataError, match=message):
            call(x)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_rows_that_are_not_finite_are_refused_by_number(coders, number):
    for coder, shape in ((coders[0], (9, 64)), (coders[2], (9, 3, 64))):
        x = torch.randn(shape)
        x[4:6, ..., 7] = number
        with pytest.raises(DataError, match=r"NaN or infinity in 2 of 9 rows, first in row 4"):
            coder.reconstruct(x)
        assert coder.reconstruct(x[x.isfinite().flatten(1).all(1)]).isfinite().all()


def test_finite_rows_whose_sum_overflows_are_read(coders):
    x = torch.full((4, 64), 1e37)
    assert not x.sum().isfinite()
    coders[0].encode(x)


@pytest.mark.parametrize("shape", [(4, 1, 64), (4, 3, 1), (4, 64), (4, 2, 64), (3, 64)])
def test_layers_are_not_broadcast(coders, shape):
    with pytest.raises(DataError, match=r"floating-point tensor \[B, 3, 64\]"):
        coders[2].encode(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type_is_read(coders, dtype):
    for coder, shape in ((coders[0], (7, 64)), (coders[2], (7, 3, 64))):
        x = torch.randn(shape).to(dtype)
        assert torch.equal(coder.reconstruct(x), coder.reconstruct(x.float()))
        assert coder.reconstruct(x[:0]).shape == (0, *shape[1:])
