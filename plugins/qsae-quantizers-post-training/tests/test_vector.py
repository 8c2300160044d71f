"""``vector``: codes and k-means by hand, what its codebook and compensation gain, storage of odd shapes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from qsae_quantizers_post_training import RtnConfig, VectorConfig
from qsae_quantizers_post_training.gptq import error
from qsae_quantizers_post_training.kmeans import kmeans, nearest_centres
from qsae_quantizers_post_training.on_codebook import present
from qsae_quantizers_post_training.rtn import Rtn
from qsae_quantizers_post_training.vector import Vector, pack_codes, unpack_codes

from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.quantizer import Calibration
from qsae_core.errors import ConfigError


def learned(weight, **options):
    quantizer = Vector(VectorConfig(**options), tuple(weight.shape))
    quantizer.initialize(weight)
    return quantizer


def same_bits(a, b):
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def test_kmeans_by_hand():
    # two groups; the weighted means are (0 * 3 + 4 * 1) / 4 = 1 and 100
    x = torch.tensor([[0.0], [4.0], [100.0]])
    assert sorted(kmeans(x, torch.tensor([3.0, 1.0, 1.0]), 2, 10).flatten().tolist()) == [1.0, 100.0]


def test_a_centre_without_vectors_stays():
    # both first centres are the same vector: the second one gets nothing
    x = torch.full((2, 3), 7.0)
    assert torch.equal(kmeans(x, torch.ones(2), 2, 3), x)


@pytest.mark.parametrize("length", [1, 4])
def test_the_nearest_centre_against_all_distances(length):
    torch.manual_seed(0)
    x, centres = torch.randn(300, length), torch.randn(50, length)
    assert torch.equal(nearest_centres(x, centres), torch.cdist(x.double(), centres.double()).argmin(1))


def test_a_row_on_the_grid_by_hand():
    quantizer = Vector(VectorConfig(length=2, codebook_bits=1), (1, 6))
    quantizer.codebook.copy_(torch.tensor([[1.0, 0.5], [-1.0, 2.0]]))
    row = torch.tensor([[3.0, 1.5, -3.0, 6.0, 3.0, 1.5]])
    packed = quantizer.pack(row)
    # codes 0, 1, 0: one bit plane, the first part in the lowest bit
    assert packed.tensors["codes"].tolist() == [[[0b010]]]
    assert packed.tensors["scales"].tolist() == [3.0]
    assert torch.equal(quantizer.unpack(packed), row)


def test_a_row_off_the_grid_by_hand():
    # nearest are (1, 0) and (0, 1); the scale of least squared error is (4 + 2) / 2
    quantizer = Vector(VectorConfig(length=2, codebook_bits=1), (1, 4))
    quantizer.codebook.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    found = quantizer.fake_quantize(torch.tensor([[4.0, 1.0, -1.0, 2.0]]))
    assert found.tolist() == [[3.0, 0.0, 0.0, 3.0]]


def test_the_right_one_of_several_scales_is_found():
    # the largest part alone is 1 (4, 0), 2 (2, 0) or 4 (1, 0); with (0, 1) only 2 is right
    codebook = torch.tensor([[4.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.5]])
    rows = torch.tensor([[4.0, 0.0, 0.0, 1.0], [4.0, 0.0, 0.0, 1.1], [0.0, 0.0, 0.0, 0.0]])
    found, which = present(rows, codebook)
    assert which.tolist() == [True, False, True]
    assert found.scale[which].tolist() == [2.0, 0.0]
    assert torch.equal(found.matrix(codebook)[which], rows[which])


def test_vectors_that_differ_by_a_hair_are_told_apart():
    # nearer to each other than the rounding of a float32 distance
    codebook = torch.tensor([[3.0, 2**-10], [3.0, 2**-10 + 2**-17]])
    for code in (0, 1):
        found, which = present(5 * codebook[code].repeat(2)[None], codebook)
        assert which.all()
        assert found.codes.tolist() == [[code, code]]


def test_the_gradient_is_the_identity():
    weight = torch.randn(4, 8, requires_grad=True)
    slopes = torch.randn(4, 8)
    torch.autograd.backward((learned(weight, length=2).fake_quantize(weight) * slopes).sum())
    assert torch.equal(weight.grad, slopes)


@pytest.mark.parametrize("n_bits", range(1, 13))
def test_codes_are_stored_in_bits(n_bits):
    codes = torch.randint(2**n_bits, (5, 11), generator=torch.Generator().manual_seed(n_bits))
    planes = pack_codes(codes, n_bits)
    assert planes.shape == (n_bits, 5, 2)
    assert torch.equal(unpack_codes(planes, 11).long(), codes)


@pytest.mark.parametrize(("length", "bits"), [(4, 8), (2, 3), (4, 10)])
def test_bits_count_the_codebook(length, bits):
    weight = torch.randn(128, 64)
    packed = learned(weight, length=length, codebook_bits=bits, iterations=1).pack(weight)
    assert packed.bits_per_weight == bits / length + 16 / 64 + 2**bits * length * 16 / (128 * 64)


def test_a_matrix_of_few_parts_has_a_codebook_of_as_many():
    weight = torch.randn(3, 4)
    quantizer = learned(weight, length=2, codebook_bits=8)
    assert quantizer.codebook.shape == (6, 2)
    assert quantizer.pack(weight).tensors["codes"].shape[0] == 3


def test_what_is_refused():
    with pytest.raises(ConfigError, match="parts of 4 columns do not fill rows of 10") as caught:
        Vector(VectorConfig(length=4), (8, 10))
    assert "1, 2, 5, 10" in str(caught.value)
    with pytest.raises(ValidationError, match="less than or equal to 12"):
        VectorConfig(codebook_bits=13)
    assert [Vector(VectorConfig(), (1, width)).length for width in (16, 13, 9, 10)] == [4, 1, 3, 2]


def test_a_codebook_beats_a_grid_of_as_many_bits():
    torch.manual_seed(0)
    weight = torch.randn(512, 64)
    left = (weight - learned(weight, length=4).fake_quantize(weight)).square().sum()
    uniform = Rtn(RtnConfig(n_bits=2), (512, 64)).fake_quantize(weight)
    assert left < 0.9 * (weight - uniform).square().sum()


def test_latents_with_energy_have_the_smaller_errors():
    torch.manual_seed(0)
    weight = torch.randn(64, 32)
    dense = torch.rand(100, 64)
    dense[:, 8:] *= 0.01
    quantizer = learned(weight, length=4, codebook_bits=5, compensate=False)
    plain = quantizer.fake_quantize(weight)
    calibration = Calibration(SparseCodes.from_dense(dense), dense @ weight)
    quantized = quantizer.calibrate(weight, calibration)
    assert same_bits(quantizer.fake_quantize(quantized), quantized)
    assert (dense @ (weight - quantized)).norm() < 0.8 * (dense @ (weight - plain)).norm()


@pytest.mark.parametrize("block", [48, 16])
def test_latents_that_make_up_for_earlier_ones_leave_less_error(block):
    torch.manual_seed(0)
    weight = torch.randn(48, 20)
    mixed = torch.randn(200, 8) @ torch.randn(8, 48)
    codes = SparseCodes.from_dense(mixed * (mixed > 2))
    left = []
    for compensate in (False, True):
        quantizer = learned(weight, codebook_bits=5, block=block, compensate=compensate)
        quantized = quantizer.calibrate(weight, Calibration(codes, codes.to_dense() @ weight))
        assert same_bits(quantizer.fake_quantize(quantized), quantized)
        left.append(error(codes, weight, quantized))
    assert left[1] < 0.7 * left[0]


def test_codes_that_never_fire_calibrate_like_equal_ones():
    torch.manual_seed(0)
    weight = torch.randn(16, 8)
    quantizer = learned(weight, codebook_bits=3)
    before = quantizer.fake_quantize(weight)
    silent = Calibration(SparseCodes.from_dense(torch.zeros(5, 16)), torch.zeros(5, 8))
    assert torch.equal(quantizer.calibrate(weight, silent), before)


@settings(max_examples=80)
@given(st.data())
def test_it_is_stored_bit_for_bit(data):
    """Odd shapes, rows of very different size, few distinct values, rows of zeros."""
    length, seed = data.draw(st.sampled_from([1, 2, 3, 4, 8])), data.draw(st.integers(0, 10**6))
    n_rows, n_parts = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n_rows, n_parts * length, generator=generator)
    if data.draw(st.booleans()):
        weight = weight.round()
    exponents = data.draw(st.lists(st.integers(-6, 6), min_size=n_rows, max_size=n_rows))
    weight = weight * 10.0 ** torch.tensor(exponents)[:, None]
    quantizer = learned(weight, length=length, codebook_bits=data.draw(st.integers(1, 10)))
    for matrix in (weight, weight.flip(0) + 0.5 * weight):
        once = quantizer.fake_quantize(matrix)
        assert same_bits(quantizer.fake_quantize(once), once)
        packed = quantizer.pack(matrix)
        fresh = Vector(quantizer.config, tuple(weight.shape))
        assert same_bits(fresh.unpack(packed), once)
        rows = torch.arange(n_rows - 1, -1, -2)
        assert same_bits(fresh.unpack_rows(packed, rows), once[rows])
