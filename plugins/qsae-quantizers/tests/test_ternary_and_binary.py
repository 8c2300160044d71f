"""The ternary and binary grids: rows worked by hand, exactness against all assignments, distortion."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from qsae_quantizers import SteConfig
from qsae_quantizers.ste import Ste

examples = settings(max_examples=40)
FLOAT16 = 2.0**-11  # relative error of a rounded scale


def quantized(rows, **options):
    weight = torch.as_tensor(rows, dtype=torch.float32)
    return Ste(SteConfig(**options), tuple(weight.shape)).eval().fake_quantize(weight)


def distortion(weight, w_hat):
    """Mean over rows of 1 - cos^2."""
    return (1 - torch.nn.functional.cosine_similarity(weight.double(), w_hat.double()).square()).mean().item()


# --- by hand. Row [3, -1, 2, 0.1]: mean |w| = 6.1 / 4 = 1.525

ROW = [[3.0, -1.0, 2.0, 0.1]]
MEAN = 1.525


def test_optimal_ternary_by_hand():
    # sums of the largest 1, 2, 3, 4: 3, 5, 6, 6.1; squares over n: 9, 12.5, 12, 9.3; so n = 2, s = 5 / 2
    assert quantized(ROW).tolist() == [[2.5, 0.0, 2.5, 0.0]]


def test_twn_by_hand():
    # threshold 0.7 * 1.525 = 1.0675 keeps 3 and 2, whose mean is 2.5
    assert quantized(ROW, scale="twn").tolist() == [[2.5, 0.0, 2.5, 0.0]]
    # and keeps 1.1 in [3, 1.1, 2, 0]: threshold 1.0675, mean of three 6.1 / 3; half the scale would be 1.02
    assert quantized([[3.0, 1.06, 2.0, 0.04]], scale="twn").tolist() == [[2.5, 0.0, 2.5, 0.0]]


def test_absmean_by_hand():
    # w / 1.525 = 1.97, -0.66, 1.31, 0.07, rounded and clipped: 1, -1, 1, 0
    scale = torch.tensor(MEAN).half().item()
    assert quantized(ROW, scale="absmean").tolist() == [[scale, -scale, scale, 0.0]]


def test_absmax_ternary_by_hand():
    # w / 3 = 1, -0.33, 0.67, 0.03, rounded: 1, 0, 1, 0
    assert quantized(ROW, scale="absmax").tolist() == [[3.0, 0.0, 3.0, 0.0]]


def test_binary_by_hand():
    # mean of 3, 1, 2, 2 is 2; zero counts as positive
    assert quantized([[3.0, -1.0, 2.0, -2.0]], grid="binary").tolist() == [[2.0, -2.0, 2.0, -2.0]]
    assert quantized([[4.0, 0.0]], grid="binary").tolist() == [[2.0, 2.0]]


def test_one_scale_for_the_matrix_by_hand():
    # all magnitudes 4, 4, 1, 1: sums 4, 8, 9, 10; squares over n: 16, 32, 27, 25; so s = 4
    matrix = [[4.0, -1.0], [1.0, -4.0]]
    assert quantized(matrix, granularity="tensor").tolist() == [[4.0, 0.0], [0.0, -4.0]]
    assert quantized(matrix, granularity="row").tolist() == [[4.0, 0.0], [0.0, -4.0]]
    assert quantized([[4.0, -4.0], [1.0, 1.0]], granularity="tensor").tolist() == [[4.0, -4.0], [0.0, 0.0]]
    assert quantized([[4.0, -4.0], [1.0, 1.0]], granularity="row").tolist() == [[4.0, -4.0], [1.0, 1.0]]


def test_rows_of_zeros_give_plain_zeros():
    for options in ({}, {"grid": "binary"}, {"n_bits": 3}, {"scale": "twn"}, {"scale": "absmean"}):
        w_hat = quantized([[0.0, -0.0, 0.0], [1.0, -1.0, 1.0]], **options)
        assert w_hat[0].tolist() == [0.0, 0.0, 0.0]
        assert not w_hat[0].signbit().any()
        assert w_hat[1].tolist() == [1.0, -1.0, 1.0]


def test_a_ternary_row_keeps_its_scale_under_absmean():
    # the mean of [1.5, 0, 0, -1.5] is 0.75 and would halve the row each time it is quantized
    assert quantized([[1.5, 0.0, 0.0, -1.5]], scale="absmean").tolist() == [[1.5, 0.0, 0.0, -1.5]]


# --- exactness


@examples
@given(st.integers(1, 7), st.sampled_from(["gauss", "laplace", "ties"]), st.integers(0, 10**6))
def test_no_ternary_row_is_closer_than_the_optimal_one(width, kind, seed):
    generator = torch.Generator().manual_seed(seed)
    row = torch.randn(width, generator=generator, dtype=torch.float64)
    if kind == "laplace":
        row = row * torch.randn(width, generator=generator).abs()
    if kind == "ties":
        row = row.round() + (row.round() == 0) * 0.5
    energy = row.square().sum().item()
    points = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=width)), dtype=torch.float64)
    explained = (points @ row).square() / points.square().sum(1).clamp(min=1)
    least = energy - explained.max().item()
    error = (row - quantized(row[None].float())[0].double()).square().sum().item()
    assert least - 1e-6 * energy <= error <= least + 2 * FLOAT16**2 * energy + 1e-6 * energy


def test_wide_rows_are_exact_too():
    # 4096 entries, past the width where float32 running sums are exact enough
    weight = torch.randn(3, 4096, generator=torch.Generator().manual_seed(0))
    ordered = weight.double().abs().sort(dim=1, descending=True).values
    n = torch.arange(1, 4097)
    explained = (ordered.cumsum(1).square() / n).max(1).values
    energy = weight.double().square().sum(1)
    error = (weight - quantized(weight)).double().square().sum(1)
    assert ((error - (energy - explained)) / energy).max() < 2 * FLOAT16**2


# --- Gaussian rows of 512


@pytest.fixture(scope="module")
def gaussian():
    return torch.randn(512, 512, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"grid": "binary"}, 1 - 2 / math.pi),
        ({}, 0.190),
        ({"scale": "twn"}, 0.191),
        ({"granularity": "tensor"}, 0.190),
    ],
)
def test_distortion_of_gaussian_rows(gaussian, options, expected):
    assert distortion(gaussian, quantized(gaussian, **options)) == pytest.approx(expected, rel=0.01)


def test_the_optimal_scale_is_the_best_of_the_rules(gaussian):
    errors = {
        rule: (gaussian - quantized(gaussian, scale=rule)).square().sum(1)
        for rule in ("optimal", "absmean", "twn", "absmax")
    }
    for rule, error in errors.items():
        assert (errors["optimal"] <= error * (1 + 1e-5)).all(), rule


def test_small_weights_of_a_wide_layer_do_not_all_become_zero():
    # a threshold of 0.5 makes every weight of a unit row of 512 zero, and the encoder's gradient with it
    atoms = torch.nn.functional.normalize(torch.randn(64, 512, generator=torch.Generator().manual_seed(0)))
    assert atoms.abs().max() < 0.5
    share = (quantized(atoms) != 0).float().mean().item()
    assert share == pytest.approx(0.54, abs=0.01)  # P(|w| > 0.612 sigma)
