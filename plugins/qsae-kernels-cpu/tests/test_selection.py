"""Top k and thresholds, by hand and against torch's own sort and comparison."""

from __future__ import annotations

import pytest
import torch
from qsae_kernels_cpu.selection import compress, top_k

pytestmark = pytest.mark.usefixtures("lanes")
latents = pytest.mark.parametrize("latents", [1, 15, 33, 1000, 5000])
INFINITE, NOT_A_NUMBER = float("inf"), float("nan")


def test_by_hand():
    scores = torch.tensor([[1.0, 5.0, -2.0, 4.0], [0.0, 0.0, 0.5, -1.0]])
    values, columns = top_k(scores, 2)
    assert [sorted(row) for row in values.tolist()] == [[4, 5], [0, 0.5]]
    assert sorted(columns[0].tolist()) == [1, 3]
    columns, values, offsets = compress(scores, 0.25)
    assert (columns.tolist(), values.tolist()) == ([0, 1, 3, 2], [1, 5, 4, 0.5])
    assert offsets.tolist() == [0, 3, 4]


@latents
@pytest.mark.parametrize("rows", [0, 1, 5, 100])
def test_top_k_is_exact(latents, rows):
    scores = torch.randn(rows, latents)
    for k in sorted({0, 1, min(5, latents), latents // 2, latents}):
        values, columns = top_k(scores, k)
        assert (columns.dtype, columns.shape) == (torch.int32, (rows, k))
        assert torch.equal(values.sort(dim=1).values, scores.topk(k, dim=1).values.sort(dim=1).values)
        assert torch.equal(scores.gather(1, columns.long()), values)
        assert (columns.sort(dim=1).values.diff(dim=1) > 0).all()


@pytest.mark.parametrize("k", [1, 32, 500, 1000])
def test_top_k_of_ties_infinities_and_ascending_rows(k):
    scores = torch.randn(5, 1000)
    scores[0], scores[1, ::3], scores[2, :990] = 0.0, INFINITE, -INFINITE
    scores[3] = torch.arange(1000.0)  # every entry passes the threshold
    scores[4] = torch.arange(1000.0).remainder(7)
    values, columns = top_k(scores, k)
    assert torch.equal(values.sort(dim=1).values, scores.topk(k, dim=1).values.sort(dim=1).values)
    assert (columns.sort(dim=1).values.diff(dim=1) > 0).all()


@pytest.mark.parametrize("k", [1, 32, 1000])
def test_top_k_of_what_is_not_a_number_ends_within_bounds(k):
    scores = torch.randn(3, 1000)
    scores[0], scores[1, ::2], scores[2, 5] = NOT_A_NUMBER, NOT_A_NUMBER, -NOT_A_NUMBER
    _, columns = top_k(scores, k)
    assert columns.min() >= 0
    assert columns.max() < 1000
    assert (columns.sort(dim=1).values.diff(dim=1) > 0).all()


@latents
@pytest.mark.parametrize("rows", [0, 1, 5, 100])
@pytest.mark.parametrize("threshold", [-10.0, 0.5, 10.0])
def test_compress_keeps_what_is_above(latents, rows, threshold):
    scores = torch.randn(rows, latents)
    columns, values, offsets = compress(scores, threshold)
    above = scores > threshold
    assert torch.equal(values, scores[above])
    assert torch.equal(columns.long(), above.nonzero()[:, 1])
    assert torch.equal(offsets.diff(), above.sum(1))
