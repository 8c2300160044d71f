"""Screens: exact where int8 loses nothing, distinct candidates always, recall on Gaussian data."""

from __future__ import annotations

import pytest
import torch
from qsae_kernels_cpu.selection import screen, screen_prepare

pytestmark = pytest.mark.usefixtures("screening")
latents = pytest.mark.parametrize("latents", [1, 15, 33, 1000, 5000])
INFINITE, NOT_A_NUMBER = float("inf"), float("nan")


@pytest.mark.parametrize("weighted", [False, True])
def test_a_screen_of_whole_numbers_is_exact(weighted):
    """Entries up to 127, and 127 in every row: scales are 1, int8 loses nothing, scores stay below 2^24."""
    W, x = torch.randint(-127, 128, (1000, 500)).float(), torch.randint(-127, 128, (70, 500)).float()
    W[:, 0], x[:, 0] = 127, 127
    bias = torch.randint(-200_000, 200_000, (1000,)).float()
    importance = 2.0 ** torch.randint(-1, 2, (1000,)) if weighted else None
    scores = x @ W.T + bias
    if importance is not None:
        scores *= importance
    prepared = screen_prepare(W)
    for batch in (1, 2, 5, 7, 33, 70):
        found = screen(prepared, x[:batch], bias, importance, 50).long()
        expected = scores[:batch].topk(50, dim=1).values.sort(dim=1).values
        assert torch.equal(scores[:batch].gather(1, found).sort(dim=1).values, expected)


@latents
@pytest.mark.parametrize("width", [1, 7, 64, 500, 576])
def test_a_screen_names_m_distinct_latents(latents, width):
    W, bias, importance = torch.randn(latents, width), torch.randn(latents), torch.rand(latents)
    prepared = screen_prepare(W)
    for batch in (0, 1, 5, 100):
        for m in sorted({1, latents // 2, latents} - {0}):
            found = screen(prepared, torch.randn(batch, width), bias, importance, m)
            assert (found.dtype, found.shape) == (torch.int32, (batch, m))
            assert ((found >= 0) & (found < latents)).all()
            assert (found.sort(dim=1).values.diff(dim=1) > 0).all()


@pytest.mark.parametrize("batch", [1, 5, 100, 1100])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_screen_finds_the_true_top_k(batch, weighted):
    latents, width, k = 4000, 256, 32
    generator = torch.Generator().manual_seed(batch)
    W, x = torch.randn(latents, width, generator=generator), torch.randn(batch, width, generator=generator)
    bias, importance = torch.randn(latents), torch.rand(latents) + 0.5 if weighted else None
    scores = x @ W.T + bias
    if importance is not None:
        scores *= importance
    found = torch.zeros_like(scores)
    found.scatter_(1, screen(screen_prepare(W), x, bias, importance, 2 * k).long(), 1.0)
    assert found.gather(1, scores.topk(k, dim=1).indices).mean() >= 0.999


def test_a_screen_of_what_is_not_finite_names_distinct_latents():
    W, x, bias = torch.randn(300, 64), torch.randn(40, 64), torch.zeros(300)
    W[7], W[8] = NOT_A_NUMBER, 0.0
    x[3], x[4, 5] = NOT_A_NUMBER, INFINITE
    bias[5:] = -INFINITE  # fewer finite scores than candidates
    found = screen(screen_prepare(W), x, bias, None, 50)
    assert ((found >= 0) & (found < 300)).all()
    assert (found.sort(dim=1).values.diff(dim=1) > 0).all()
    assert (found[:, :, None] == torch.arange(5)).any(1).all()
