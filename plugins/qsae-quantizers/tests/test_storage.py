"""Packing: what is stored, that it unpacks to the same bits, and that magnitudes survive float16 scales."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from qsae_quantizers import NoneConfig, SteConfig
from qsae_quantizers.float16_scales import from_float16, powers_of_two, to_float16
from qsae_quantizers.none import NoQuantizer
from qsae_quantizers.ste import Ste

from qsae_core.contracts.quantizer import Packed
from qsae_core.errors import ArtifactError

examples = settings(max_examples=60)
OPTIONS = [
    {"scale": "optimal"},
    {"scale": "absmean"},
    {"scale": "twn"},
    {"scale": "absmax"},
    {"grid": "binary"},
    {"n_bits": 1},
    {"n_bits": 2},
    {"n_bits": 3},
    {"n_bits": 4},
    {"n_bits": 8},
    {"n_bits": 3, "scale": "absmax"},
]
options = st.builds(
    lambda chosen, granularity: {**chosen, "granularity": granularity},
    st.sampled_from(OPTIONS),
    st.sampled_from(["row", "tensor"]),
)


def same_bits(a, b):
    return a.dtype == b.dtype and torch.equal(a.view(torch.int32), b.view(torch.int32))


@st.composite
def matrices(draw, spread):
    """float32 matrices whose rows are of very different size, some of them zero, some with few values."""
    rows, width, seed = draw(st.integers(1, 6)), draw(st.integers(1, 23)), draw(st.integers(0, 10**6))
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator)
    if draw(st.booleans()):
        weight = weight.mul(2).round().div(2)
    exponents = draw(st.lists(st.integers(-spread, spread), min_size=rows, max_size=rows))
    weight = weight * (10.0 ** torch.tensor(exponents, dtype=torch.float64))[:, None].float()
    if draw(st.booleans()):
        weight[draw(st.integers(0, rows - 1))] = 0
    return weight


# --- by hand


def test_stored_ternary_by_hand():
    packed = Ste(SteConfig(), (1, 4)).pack(torch.tensor([[3.0, -1.0, 2.0, 0.1]]))
    # points 1, 0, 1, 0 (and 0): digits 2, 1, 2, 1, 1 with weights 1, 3, 9, 27, 81
    assert packed.tensors["codes"].tolist() == [[2 + 3 + 18 + 27 + 81]]
    # scale 2.5 = 20480 * 2^-13, so that the largest scale lies in [2^14, 2^15]
    assert packed.tensors["scales"].tolist() == [20480.0]
    assert packed.tensors["scales"].dtype == torch.float16
    assert packed.layout == {"grid": "ternary", "n_bits": None, "scale_exponent": -13}
    assert packed.shape == (1, 4)


def test_stored_planes_by_hand():
    # step 2: bins 1, -1, 1, 0 plus 2 are 3, 1, 3, 2: high bits 1, 0, 1, 1 and low bits 1, 1, 1, 0
    packed = Ste(SteConfig(n_bits=2, scale="absmax"), (1, 4)).pack(torch.tensor([[3.0, -1.0, 2.0, 0.1]]))
    assert packed.tensors["codes"].tolist() == [[[0b1101]], [[0b0111]]]
    binary = Ste(SteConfig(grid="binary"), (1, 4)).pack(torch.tensor([[3.0, -1.0, 2.0, 0.1]]))
    assert binary.tensors["codes"].tolist() == [[[0b1101]]]


@pytest.mark.parametrize(
    ("width", "options", "bits"),
    [
        (512, {}, (103 * 8 + 16) / 512),  # 1.6 would be 102.4 bytes a row
        (500, {}, 1.6 + 16 / 500),
        (512, {"grid": "binary"}, 1 + 16 / 512),
        (512, {"n_bits": 4}, 4 + 16 / 512),
        (500, {"n_bits": 4}, (4 * 63 * 8 + 16) / 500),
        (512, {"granularity": "tensor"}, 103 * 8 / 512 + 16 / (40 * 512)),
    ],
)
def test_bits_per_weight_count_scales_and_padding(width, options, bits):
    weight = torch.randn(40, width, generator=torch.Generator().manual_seed(0))
    assert Ste(SteConfig(**options), (40, width)).pack(weight).bits_per_weight == pytest.approx(bits)


# --- the same bits


@examples
@given(matrices(spread=30), options)
def test_unpacked_is_what_training_saw(weight, options):
    quantizer = Ste(SteConfig(**options), tuple(weight.shape)).eval()
    packed = quantizer.pack(weight)
    from_file = Packed(packed.tensors, packed.shape, json.loads(json.dumps(packed.layout)))
    other = Ste(SteConfig(grid="binary"), tuple(weight.shape))  # the layout, not the config, says how
    assert same_bits(other.unpack(from_file), quantizer.fake_quantize(weight))


@examples
@given(matrices(spread=4), options)
def test_quantizing_twice_changes_no_bit(weight, options):
    quantizer = Ste(SteConfig(**options), tuple(weight.shape)).eval()
    once = quantizer.fake_quantize(weight)
    assert same_bits(quantizer.fake_quantize(once), once)


@pytest.mark.parametrize("options", OPTIONS)
def test_wide_rows_quantized_twice_change_no_bit(options):
    weight = torch.randn(70, 300, generator=torch.Generator().manual_seed(1))
    quantizer = Ste(SteConfig(**options), (70, 300)).eval()
    once = quantizer.fake_quantize(weight)
    assert same_bits(quantizer.fake_quantize(once), once)


def test_sixteen_entries_on_a_grid_do_not_make_a_row_one():
    # the screen looks at 16 entries; with their step of 3/7 the one of 40 would be clipped to 1.5
    weight = torch.full((2, 20), 1.5)
    weight[0, 17] = 40.0
    w_hat = Ste(SteConfig(n_bits=3), (2, 20)).eval().fake_quantize(weight)
    assert w_hat[0, 17] > 30
    assert w_hat[1].tolist() == [1.5] * 20


def test_matrices_in_any_memory_layout_and_in_pieces(monkeypatch):
    weight = torch.randn(37, 29, generator=torch.Generator().manual_seed(0))
    quantizer = Ste(SteConfig(), (37, 29)).eval()
    whole = quantizer.fake_quantize(weight)
    assert same_bits(quantizer.fake_quantize(weight.T.contiguous().T), whole)
    monkeypatch.setattr("qsae_quantizers.blocks.CHUNK", {"cpu": 5 * 29})
    assert same_bits(quantizer.fake_quantize(weight), whole)
    assert same_bits(quantizer.unpack(quantizer.pack(weight)), whole)


# --- magnitudes


@pytest.mark.parametrize("exponent", [-100, -30, -1, 1, 30, 100, 124])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_power_of_two_goes_through_exactly(exponent, options):
    weight = torch.randn(8, 100, generator=torch.Generator().manual_seed(0)).clamp(-3.9, 3.9)
    quantizer = Ste(SteConfig(**options), (8, 100)).eval()
    expected = quantizer.fake_quantize(weight).double() * 2.0**exponent
    assert torch.equal(quantizer.fake_quantize(weight * 2.0**exponent).double(), expected)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_smallest_floats_are_quantized_too(options):
    weight = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    quantizer = Ste(SteConfig(**options), (8, 100)).eval()
    tiny = (weight.double() * 1e-38).float()  # below float32's normal numbers, with fewer bits
    errors = [
        ((w.double() - quantizer.fake_quantize(w).double()).norm() / w.double().norm()).item()
        for w in (weight, tiny)
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.01)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_tiny_row_beside_a_large_one_survives(options):
    row = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    weight = torch.cat([row * 1000, row * 2.0**-17])  # 2^-27 of it: a float16 alone would lose it
    w_hat = Ste(SteConfig(**options), (2, 64)).eval().fake_quantize(weight)
    torch.testing.assert_close(w_hat[1] * 2.0**17, w_hat[0] / 1000, rtol=2e-3, atol=1e-6)


def test_beyond_the_range_of_scales_a_row_becomes_zero_not_garbage():
    weight = torch.tensor([[1.0, -1.0], [2.0**-60, -(2.0**-60)]])
    for options in OPTIONS:
        quantizer = Ste(SteConfig(**options), (2, 2)).eval()
        w_hat = quantizer.fake_quantize(weight)
        assert w_hat[0].tolist() == pytest.approx([1.0, -1.0], rel=1e-3)
        assert w_hat[1].tolist() == [0.0, 0.0]
        assert same_bits(quantizer.fake_quantize(w_hat), w_hat)


@examples
@given(st.lists(st.floats(2.0**-120, 2.0**120, width=32), min_size=1, max_size=5))
def test_scales_keep_eleven_bits_and_round_trip(values):
    scale = torch.tensor(values)
    stored, exponent = to_float16(scale)
    restored = from_float16(stored, exponent)
    in_range = scale >= scale.max() * 2.0**-28
    assert ((restored - scale).abs()[in_range] <= 2.0**-11 * scale[in_range]).all()
    again, same_exponent = to_float16(restored)
    assert same_exponent == exponent
    assert torch.equal(again, stored)


def test_scales_by_hand():
    # 3 = 1.5 * 2^1 is stored as 1.5 * 2^14 = 24576 with exponent 1 - 14
    stored, exponent = to_float16(torch.tensor([3.0, 0.0]))
    assert (stored.tolist(), exponent) == ([24576.0, 0.0], -13)
    # just below 4 rounds to 4 in 11 bits and takes the exponent of 4
    stored, exponent = to_float16(torch.tensor([4.0 - 2.0**-20]))
    assert (stored.tolist(), exponent) == ([16384.0], -12)
    assert to_float16(torch.zeros(2))[0].tolist() == [0.0, 0.0]


def test_powers_of_two_are_exact():
    exponents = torch.arange(-126, 128)
    assert powers_of_two(exponents).tolist() == [2.0**e for e in exponents.tolist()]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_weight_stays_bad_and_is_not_packed(bad):
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    weight[1, 2] = bad
    for options in OPTIONS:
        quantizer = Ste(SteConfig(**options), (3, 8)).eval()
        w_hat = quantizer.fake_quantize(weight)
        assert not w_hat[1].isfinite().all()
        assert w_hat[[0, 2]].isfinite().all()
        with pytest.raises(ArtifactError, match="row 1"):
            quantizer.pack(weight)


# --- none


def test_none_leaves_weights_alone():
    weight = torch.randn(3, 5)
    quantizer = NoQuantizer(NoneConfig(), (3, 5))
    assert quantizer.fake_quantize(weight) is weight
    assert quantizer.is_identity
    assert not Ste(SteConfig(), (3, 5)).is_identity
    packed = quantizer.pack(weight)
    assert packed.bits_per_weight == 32
    assert torch.equal(quantizer.unpack(packed), weight)
    assert (
        packed.tensors["weight"].data_ptr() == weight.data_ptr()
    )  # matrices may be larger than memory twice
