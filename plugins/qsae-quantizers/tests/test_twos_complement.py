"""Integers in two's complement: bits and values by hand, the search against brute force."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from qsae_quantizers import TwosComplementConfig
from qsae_quantizers.twos_complement import TwosComplement

examples = settings(max_examples=40)


def made(shape, **options):
    return TwosComplement(TwosComplementConfig(**options), shape).eval()


def test_bits_by_hand():
    # n = 4, gamma = 4: bits 1010 are -8 + 2 = -6, times 4 / 8
    quantizer = made((1, 2), n_bits=4)
    packed = quantizer.pack_codes(torch.tensor([[-6, 3]]), torch.tensor([0.5]))
    assert quantizer.unpack(packed).tolist() == [[-3.0, 1.5]]
    # planes b3, b2, b1, b0 of -6 = 1010 and 3 = 0011, the first entry in the lowest bit
    assert packed.tensors["codes"].tolist() == [[[0b01]], [[0b00]], [[0b11]], [[0b10]]]
    assert quantizer.lookup(packed).matrix().tolist() == [[-3.0, 1.5]]
    assert quantizer.grid().tolist() == [float(q) for q in range(-8, 8)]


def test_the_first_planes_are_the_middle_of_what_they_leave_open():
    quantizer = made((1, 2), n_bits=4)
    packed = quantizer.pack_codes(torch.tensor([[-6, 3]]), torch.tensor([0.5]))
    # two planes: 10 stands for -8 to -5, 00 for 0 to 3: middles -6.5 and 1.5, times
    # <(-6, 3), (-6.5, 1.5)> / <(-6.5, 1.5), (-6.5, 1.5)> = 43.5 / 44.5
    two = quantizer.unpack(quantizer.at_level(packed, 2))
    assert two.tolist() == [pytest.approx([-6.5 * 0.5 * 43.5 / 44.5, 1.5 * 0.5 * 43.5 / 44.5], rel=1e-5)]
    # one plane: -8 to -1 and 0 to 7: middles -4.5 and 3.5, times (27 + 10.5) / (20.25 + 12.25)
    one = quantizer.unpack(quantizer.at_level(packed, 1))
    assert one.tolist() == [pytest.approx([-4.5 * 0.5 * 37.5 / 32.5, 3.5 * 0.5 * 37.5 / 32.5], rel=1e-5)]


def test_a_row_by_hand():
    # multiples of 0.5 from -2 to 1.5 stay; three bits hold -4 to 3
    row = [[-2.0, 1.5, 0.5, 0.0, -1.0]]
    quantizer = made((1, 5), n_bits=3)
    assert quantizer.fake_quantize(torch.tensor(row)).tolist() == row
    # with -2.5 as well they do not fit on one side: -5 steps
    moved = quantizer.fake_quantize(torch.tensor([[-2.5, 1.5, 0.5, 0.0, -1.0]]))
    assert moved[0, 0] > -2.5


def test_one_bit_is_zero_or_minus_the_step():
    # of [-3, -2, 1] keep the n most negative that maximise (sum)^2 / n: 9, 12.5: step 2.5
    assert made((1, 3), n_bits=1).fake_quantize(torch.tensor([[-3.0, -2.0, 1.0]])).tolist() == [
        [-2.5, -2.5, 0.0]
    ]


def least_error(row, n_bits):
    """Over all assignments of integers, each with its best step."""
    half = 2 ** (n_bits - 1)
    codes = torch.tensor(list(itertools.product(range(-half, half), repeat=len(row))), dtype=torch.float64)
    along = (codes @ row.double()).clamp(min=0)
    return (
        row.double().square().sum().item()
        - (along.square() / codes.square().sum(1).clamp(min=1)).max().item()
    )


@examples
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6))
def test_the_search_comes_close_to_all_assignments(width, n_bits, seed):
    row = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    w_hat = made((1, width), n_bits=n_bits).fake_quantize(row[None])[0]
    error = (row.double() - w_hat.double()).square().sum().item()
    assert error <= least_error(row, n_bits) + 0.01 * row.square().sum().item()


@pytest.mark.parametrize("n_bits", [1, 2, 3, 4, 6])
def test_the_search_comes_close_to_a_fine_scan(n_bits):
    weight = torch.randn(60, 256, generator=torch.Generator().manual_seed(0)).double()
    half, best = 2 ** (n_bits - 1), torch.zeros(60, dtype=torch.float64)
    for share in torch.logspace(0.3, -1.3, 1500, dtype=torch.float64):
        codes = (weight / (weight.abs().amax(1, keepdim=True) / half * share)).round().clamp(-half, half - 1)
        along = (weight * codes).sum(1).clamp(min=0)
        best = torch.maximum(best, along.square() / codes.square().sum(1).clamp(min=1e-9))
    w_hat = made((60, 256), n_bits=n_bits).fake_quantize(weight.float())
    error = (weight - w_hat.double()).square().sum(1)
    assert error.sum() <= 1.01 * (weight.square().sum(1) - best).sum()


@pytest.mark.parametrize(
    ("codes", "scale", "reason"),
    [
        ([[8, 0]], [1.0], "integers from -8 to 7"),
        ([[-9, 0]], [1.0], "integers from -8 to 7"),
        ([[0.5, 0]], [1.0], "integers from -8 to 7"),
        ([[1, 0]], [1.0, 2.0], "1 rows need 1 scales"),
        ([[1, 0]], [-1.0], "not negative"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes, scale, reason):
    with pytest.raises(ValueError, match=reason):
        made((1, 2), n_bits=4).pack_codes(torch.tensor(codes), torch.tensor(scale))


def test_codes_with_one_scale_and_with_groups():
    codes = torch.tensor([[-8, 7, 1, 0], [3, -2, -1, 5]])
    whole = made((2, 4), n_bits=4, granularity="tensor")
    assert torch.equal(whole.unpack(whole.pack_codes(codes, torch.tensor([0.25]))), codes * 0.25)
    pairs = made((2, 4), n_bits=4, granularity="group", group_size=2)
    scale = torch.tensor([[0.5, 2.0], [1.0, 4.0]])
    unpacked = pairs.unpack(pairs.pack_codes(codes, scale))
    assert torch.equal(unpacked, codes * scale.repeat_interleave(2, dim=1))
