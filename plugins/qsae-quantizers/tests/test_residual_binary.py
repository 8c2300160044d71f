"""Sums of sign vectors: by hand, exact recovery, and what a free choice of scales gains."""

from __future__ import annotations

import pytest
import torch
from qsae_quantizers import ResidualBinaryConfig
from qsae_quantizers.residual_binary import ResidualBinary
from qsae_quantizers.sign_sums import best_scales, known_scales, sign_sums, spare_scales

from qsae_core.kernels.packing import unpack_planes


def made(shape, **options):
    return ResidualBinary(ResidualBinaryConfig(**options), shape).eval()


def test_two_terms_by_hand():
    # 3 = 2 + 1, -1 = -2 + 1, 1 = 2 - 1, -3 = -2 - 1
    weight = torch.tensor([[3.0, -1.0, 1.0, -3.0, 3.0]])
    quantizer = made((1, 5), n_bits=2)
    assert quantizer.fake_quantize(weight).tolist() == weight.tolist()
    packed = quantizer.pack(weight)
    # the largest scale, 2 = 1 * 2^1, is stored as 2^14
    assert packed.layout["scale_exponent"] == -13
    assert packed.tensors["scales"].tolist() == [[16384.0], [8192.0]]
    assert packed.tensors["codes"].tolist() == [[[0b10101]], [[0b10011]]]
    # the first term alone: 2 times <w, b> / 5 = 2 * 11 / 10
    first = quantizer.unpack(quantizer.at_level(packed, 1))
    torch.testing.assert_close(first, torch.tensor([[1.0, -1, 1, -1, 1]]) * 2.2, rtol=1e-5, atol=0)


def test_uneven_scales_by_hand():
    # values +-5 +-1: no evenly spaced grid of two bits has 4 and 6
    weight = torch.tensor([[6.0, 4.0, -4.0, -6.0, 4.0, 6.0]])
    quantizer = made((1, 6), n_bits=2)
    assert quantizer.fake_quantize(weight).tolist() == weight.tolist()
    assert quantizer.pack(weight).tensors["scales"].flatten().tolist() == [5.0 * 2**12, 2.0**12]


def test_one_term_is_the_sign_times_the_mean():
    weight = torch.tensor([[3.0, -1.0, 2.0, -2.0]])
    assert made((1, 4), n_bits=1).fake_quantize(weight).tolist() == [[2.0, -2.0, 2.0, -2.0]]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_scales_are_found_again_from_the_sums(n):
    rows = torch.randn(200, 300, generator=torch.Generator().manual_seed(n)).clamp(-3, 3) / 4
    scales = best_scales(rows, n, shared=False)
    sums = sign_sums(rows, scales)
    assert torch.equal(known_scales(sums, n, shared=False), scales)
    assert known_scales(rows, n, shared=False).isnan().all()


@pytest.mark.parametrize("n", [2, 5, 8])
def test_spare_scales_are_always_found_again(n):
    for width in (1, 2, 3, 7, 40):
        rows = torch.randn(300, width, generator=torch.Generator().manual_seed(width)) / 4
        sums = sign_sums(rows, spare_scales(rows, n, shared=False))
        found = known_scales(sums, n, shared=False)
        assert torch.equal(sign_sums(sums, found), sums)


@pytest.mark.parametrize(("n", "share"), [(2, 0.99), (3, 0.99), (4, 1.0)])
def test_free_scales_lose_less_than_even_ones(n, share):
    rows = torch.randn(200, 512, generator=torch.Generator().manual_seed(0)) / 4
    free = (rows - sign_sums(rows, best_scales(rows, n, shared=False))).square().sum()
    even = (rows - sign_sums(rows, spare_scales(rows, n, shared=False))).square().sum()
    assert free < share * even


def test_scales_are_the_least_squares_for_their_signs():
    weight = torch.randn(5, 200, generator=torch.Generator().manual_seed(0))
    quantizer = made((5, 200), n_bits=3)
    packed = quantizer.pack(weight)
    w_hat = quantizer.unpack(packed)
    # other scales for these signs come hardly closer: three rounds of refitting are nearly enough
    planes = [unpack_planes(plane[None], 200) for plane in packed.tensors["codes"]]
    signs = torch.stack(planes).double() * 2 - 1
    for row in range(5):
        best = torch.linalg.lstsq(signs[:, row].T, weight[row].double()[:, None]).solution
        least = (signs[:, row].T @ best).squeeze(1).sub(weight[row]).square().sum()
        assert (weight[row] - w_hat[row]).square().sum() <= 1.03 * least


def test_training_rounds_as_evaluation_does_but_for_a_few_rows():
    weight = torch.randn(500, 576, generator=torch.Generator().manual_seed(0))
    quantizer = made((500, 576), n_bits=4)
    evaluated = quantizer.fake_quantize(weight)
    trained = quantizer.train().fake_quantize(weight)
    assert (evaluated != trained).any(1).float().mean() < 0.01
