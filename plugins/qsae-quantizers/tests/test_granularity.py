"""One scale per row, per group of columns, or for the matrix."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from pydantic import ValidationError
from qsae_quantizers import SteConfig
from qsae_quantizers.ste import Ste

from qsae_core.errors import ConfigError

examples = settings(max_examples=40)
OPTIONS = [{}, {"scale": "twn"}, {"scale": "absmean"}, {"grid": "binary"}, {"n_bits": 1}, {"n_bits": 3}]


def quantizer(shape, **options):
    return Ste(SteConfig(**options), shape).eval()


def test_groups_by_hand():
    # signs times mean |w| of each pair: 2 for (3, -1), 1 for (-0.5, 1.5), 4 and 0.5 in the second row
    weight = torch.tensor([[3.0, -1.0, -0.5, 1.5], [4.0, -4.0, 0.0, -1.0]])
    pairs = quantizer((2, 4), grid="binary", granularity="group", group_size=2)
    expected = [[2.0, -2.0, -1.0, 1.0], [4.0, -4.0, 0.5, -0.5]]
    assert pairs.fake_quantize(weight).tolist() == expected
    packed = pairs.pack(weight)
    # the largest scale, 4 = 1 * 2^2, is stored as 2^14
    assert packed.layout["scale_exponent"] == -12
    assert packed.tensors["scales"].tolist() == [[8192.0, 4096.0], [16384.0, 2048.0]]
    assert packed.tensors["codes"].tolist() == [[[0b1001], [0b0101]]]
    assert pairs.unpack(packed).tolist() == expected
    assert pairs.lookup(packed).scales.tolist() == [[2.0, 1.0], [4.0, 0.5]]


@examples
@given(
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 9),
    st.sampled_from(OPTIONS),
    st.integers(0, 10**6),
)
def test_groups_are_rows_of_a_narrower_matrix(rows, groups, size, options, seed):
    weight = torch.randn(rows, groups * size, generator=torch.Generator().manual_seed(seed))
    grouped = quantizer(tuple(weight.shape), granularity="group", group_size=size, **options)
    narrow = quantizer((rows * groups, size), **options)
    expected = narrow.fake_quantize(weight.view(-1, size)).view_as(weight)
    assert torch.equal(grouped.fake_quantize(weight), expected)
    packed = grouped.pack(weight)
    assert torch.equal(grouped.unpack(packed), expected)
    assert torch.equal(grouped.lookup(packed).matrix(), expected)
    assert torch.equal(grouped.unpack_rows(packed, torch.arange(rows).flip(0)), expected.flip(0))
    assert packed.tensors["scales"].shape == (rows, groups)


def test_the_gradient_stops_in_the_group_that_clips():
    # the reach of two bits is twice the step; (1, 3) and (1, 3) have step 2, and 4.5 alone sets its own
    weight = torch.tensor([[1.0, 3.0] * 400 + [1.0, 4.5]], requires_grad=True)
    coarse = Ste(SteConfig(n_bits=2), (1, 802))
    coarse.fake_quantize(weight).sum().backward()
    assert weight.grad[0].tolist() == [1.0] * 801 + [0.0]
    weight.grad = None
    fine = Ste(SteConfig(n_bits=2, granularity="group", group_size=2), (1, 802))
    fine.fake_quantize(weight).sum().backward()
    assert weight.grad[0].tolist() == [1.0] * 802


def test_groups_lose_less_and_cost_more():
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    errors, bits = [], []
    for options in (
        {},
        {"granularity": "group", "group_size": 64},
        {"granularity": "group", "group_size": 8},
    ):
        packed = quantizer((64, 512), n_bits=3, **options).pack(weight)
        errors.append((weight - quantizer((64, 512), n_bits=3).unpack(packed)).square().sum().item())
        bits.append(packed.bits_per_weight)
    assert errors == sorted(errors, reverse=True)
    assert bits == [3 + 16 / 512, 3 + 16 / 64, 3 + 16 / 8]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"granularity": "group"}, "needs group_size"),
        ({"group_size": 8}, "group_size = 8 contradicts granularity 'row'"),
        ({"granularity": "tensor", "group_size": 8}, "group_size = 8 contradicts granularity 'tensor'"),
        ({"granularity": "group", "group_size": 0}, "greater than 0"),
        ({"granularity": "column"}, "'row', 'tensor' or 'group'"),
    ],
)
def test_contradictions_are_refused_with_the_reason(options, reason):
    with pytest.raises(ValidationError, match=reason):
        SteConfig(**options)


def test_a_group_that_does_not_divide_the_width_is_told_what_does():
    with pytest.raises(ConfigError, match="groups of 8 columns do not fill rows of 20") as error:
        quantizer((3, 20), granularity="group", group_size=8)
    assert "1, 2, 4, 5, 10, 20" in str(error.value)
    assert error.value.where == "group_size"
