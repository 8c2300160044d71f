"""``hqq``: the shrinkage against exhaustive minimisation, rows by hand, storage of odd shapes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qsae_quantizers_post_training import HqqConfig, RtnConfig
from qsae_quantizers_post_training.hqq import Hqq, shrink
from qsae_quantizers_post_training.rtn import Rtn


def test_shrinking_by_hand():
    # p = 1: soft thresholding at 1 / beta = 1/4
    assert shrink(torch.tensor([1.0, -0.5, 0.2]), 4.0, 1.0).tolist() == [0.75, -0.25, 0.0]
    # p = 1/2: |x| - |x|^(-1/2) / beta at x = 4, beta = 2: 4 - 1/4
    assert shrink(torch.tensor([4.0]), 2.0, 0.5).tolist() == [3.75]


def test_a_row_on_an_affine_grid_stays_and_is_stored_so():
    # scale 2, zero point 1/2: q = 0, 1, 3 are -1, 1, 5
    quantizer = Hqq(HqqConfig(n_bits=2), (1, 3))
    row = torch.tensor([[-1.0, 1.0, 5.0]])
    assert torch.equal(quantizer.fake_quantize(row), row)
    packed = quantizer.pack(row)
    assert packed.tensors["scales"].tolist() == [2.0]
    assert packed.tensors["zeros"].tolist() == [8]
    assert packed.tensors["codes"].tolist() == [[[0b100]], [[0b110]]]


def test_a_zero_point_serves_rows_that_are_not_around_zero():
    torch.manual_seed(0)
    weight = torch.randn(30, 64).abs() + 1
    affine = Hqq(HqqConfig(n_bits=3), (30, 64)).fake_quantize(weight)
    symmetric = Rtn(RtnConfig(n_bits=3), (30, 64)).fake_quantize(weight)
    assert (weight - affine).square().mean() < 0.2 * (weight - symmetric).square().mean()


@pytest.mark.parametrize("n_bits", [2, 3, 4])
def test_the_error_against_a_search_over_scales_and_zero_points(n_bits):
    torch.manual_seed(1)
    weight, most, p = torch.randn(6, 48), 2**n_bits - 1, 0.7
    found = Hqq(HqqConfig(n_bits=n_bits), (6, 48)).fake_quantize(weight)
    ours = (weight - found).abs().pow(p).sum(1)
    span = weight.amax(1) - weight.amin(1)
    best = torch.full((6,), torch.inf)
    for share in torch.linspace(0.3, 1.05, 60):
        scale = (share * span / most)[:, None]
        for shift in torch.linspace(-1, 1, 41):
            zero = most / 2 - weight.mean(1, keepdim=True) / scale + shift * most / 4
            q = (weight / scale + zero).round().clamp(0, most)
            best = torch.minimum(best, (weight - (q - zero) * scale).abs().pow(p).sum(1))
    assert ours.sum() < 1.12 * best.sum()


@settings(max_examples=80)
@given(st.integers(1, 7), st.integers(1, 30), st.integers(0, 999), st.integers(1, 8))
def test_it_is_stored_bit_for_bit(n_rows, width, seed, n_bits):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n_rows, width, generator=generator) * 10.0 ** (seed % 7 - 3) + seed % 3
    quantizer = Hqq(HqqConfig(n_bits=n_bits, iterations=5), (n_rows, width))
    once = quantizer.fake_quantize(weight)
    assert torch.equal(quantizer.fake_quantize(once), once)
    packed = quantizer.pack(weight)
    assert torch.equal(quantizer.unpack(packed), once)
    rows = torch.arange(n_rows).flip(0)
    assert torch.equal(quantizer.unpack_rows(packed, rows), once[rows])
