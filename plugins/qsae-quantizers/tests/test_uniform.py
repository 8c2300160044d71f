"""The uniform grid: rows worked by hand, the search against brute force, distortion of Gaussian rows."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from qsae_quantizers import SteConfig
from qsae_quantizers.ste import Ste

examples = settings(max_examples=30)
FLOAT16 = 2.0**-11


def quantized(rows, **options):
    weight = torch.as_tensor(rows, dtype=torch.float32)
    return Ste(SteConfig(**options), tuple(weight.shape)).eval().fake_quantize(weight)


def squared_error(weight, w_hat):
    return (weight.double() - w_hat.double()).square().sum(1)


# --- by hand


def test_absmax_two_bits_by_hand():
    # step 3 / 1.5 = 2, points -3, -1, 1, 3: w / 2 = 1.5, -0.5, 1, 0.05 lie in bins 1, -1, 1, 0
    assert quantized([[3.0, -1.0, 2.0, 0.1]], n_bits=2, scale="absmax").tolist() == [[3.0, -1.0, 3.0, 1.0]]


def test_optimal_two_bits_by_hand():
    # the row lies on the grid of step 2 and stays
    assert quantized([[3.0, 1.0, 1.0, -1.0]], n_bits=2).tolist() == [[3.0, 1.0, 1.0, -1.0]]
    # [5, 1, 1, 1]: t = (1.5, .5, .5, .5), <w, t> = 9, <t, t> = 3, step 3: 5 is nearest to 4.5 and 1 to 1.5;
    # all at one level would leave 28 - 8^2 / 4 = 12, this leaves 28 - 9^2 / 3 = 1
    assert quantized([[5.0, 1.0, 1.0, 1.0]], n_bits=2).tolist() == [[4.5, 1.5, 1.5, 1.5]]


def test_one_bit_is_the_binary_grid():
    weight = torch.randn(20, 33, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantized(weight, n_bits=1), quantized(weight, grid="binary"))


def test_there_is_no_zero_and_both_ends_are_used():
    w_hat = quantized([[-7.5, -0.2, 0.0, 0.2, 7.5]], n_bits=4, scale="absmax")  # step 1
    assert w_hat.tolist() == [[-7.5, -0.5, 0.5, 0.5, 7.5]]


def test_grid_lists_the_points():
    grid = Ste(SteConfig(n_bits=2), (3, 3)).grid()
    assert grid.tolist() == [-1.5, -0.5, 0.5, 1.5]


# --- the search


@examples
@given(st.integers(1, 9), st.integers(0, 10**6))
def test_no_two_bit_row_is_closer_than_the_optimal_one(width, seed):
    row = torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    levels = torch.tensor(list(itertools.product((0.5, 1.5), repeat=width)), dtype=torch.float64)
    energy = row.square().sum().item()
    least = energy - ((levels @ row.abs()).square() / levels.square().sum(1)).max().item()
    error = squared_error(row[None], quantized(row[None], n_bits=2)).item()
    assert least - 1e-6 * energy <= error <= least + 2 * FLOAT16**2 * energy + 1e-6 * energy


def least_error(weight, n_bits):
    """The least squared error of a fine scan over 1200 steps, each refitted by least squares."""
    magnitudes = weight.double().abs()
    top = 2 ** (n_bits - 1) - 1
    best = torch.zeros(len(weight), dtype=torch.float64)
    for share in torch.logspace(0.15, -1.2, 1200, dtype=torch.float64):
        step = magnitudes.amax(1, keepdim=True) / (top + 0.5) * share
        points = (magnitudes / step).floor().clamp(max=top) + 0.5
        best = torch.maximum(best, (magnitudes * points).sum(1).square() / points.square().sum(1))
    return magnitudes.square().sum(1) - best


@pytest.mark.parametrize("kind", ["gauss", "student"])
@pytest.mark.parametrize(
    ("width", "n_bits", "tolerance"), [(16, 3, 1.04), (16, 4, 1.06), (64, 4, 1.02), (64, 5, 1.03)]
)
def test_the_search_comes_close_to_brute_force(kind, width, n_bits, tolerance):
    generator = torch.Generator().manual_seed(n_bits)
    weight = torch.randn(100, width, generator=generator)
    if kind == "student":  # heavy tails, as in hidden states that are not rotated
        weight = weight / torch.randn(100, 3, generator=generator).square().mean(1, keepdim=True).sqrt()
        weight[:, :2] *= 6
    error = squared_error(weight, quantized(weight, n_bits=n_bits))
    assert error.sum() <= tolerance * least_error(weight, n_bits).sum()


@pytest.mark.parametrize(
    ("n_bits", "known"), [(1, 0.363), (2, 0.1185), (3, 0.0373), (4, 0.0115), (5, 0.0035), (6, 0.0011)]
)
def test_distortion_of_gaussian_rows(n_bits, known):
    """Known: the best fixed step for a Gaussian of any width (Max, 1960); a row of 512 has shorter tails."""
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    w_hat = quantized(weight, n_bits=n_bits)
    cosine = torch.nn.functional.cosine_similarity(weight.double(), w_hat.double())
    distortion = (1 - cosine.square()).mean().item()
    assert distortion == pytest.approx(known, rel=0.02) if n_bits <= 3 else 0.7 * known < distortion < known
    if n_bits >= 2:
        assert squared_error(weight, w_hat).sum() <= 1.01 * least_error(weight, n_bits).sum()


def test_absmax_is_several_times_worse_at_few_bits():
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    for n_bits, times in ((2, 3.0), (3, 1.9), (4, 1.3)):
        absmax = squared_error(weight, quantized(weight, n_bits=n_bits, scale="absmax")).sum()
        assert absmax > times * squared_error(weight, quantized(weight, n_bits=n_bits)).sum()
