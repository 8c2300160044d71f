"""``rtn`` and ``gptq`` by hand."""

import pytest
import torch
from qsae_quantizers_post_training import GptqConfig, RtnConfig
from qsae_quantizers_post_training.gptq import Gptq, clusters, error
from qsae_quantizers_post_training.rtn import Rtn

from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.quantizer import Calibration


def test_one_bit_is_the_mean_magnitude():
    # points +-1/2; the best scale of +-(1, 2, 3) is twice the mean magnitude 2: every entry becomes +-2
    quantizer = Rtn(RtnConfig(n_bits=1), (1, 3))
    assert quantizer.fake_quantize(torch.tensor([[1.0, -2.0, 3.0]])).tolist() == [[2.0, -2.0, 2.0]]


def test_a_row_on_the_grid_stays():
    # 2 bits: -3/2, -1/2, 1/2, 3/2 times 4
    row = torch.tensor([[6.0, -2.0, 2.0, -6.0]])
    packed = Rtn(RtnConfig(n_bits=2), (1, 4)).pack(row)
    assert packed.tensors["scales"].tolist() == [4.0]
    # codes 3, 1, 2, 0: high bits 1, 0, 1, 0 and low bits 1, 1, 0, 0, the first entry in the lowest bit
    assert packed.tensors["codes"].tolist() == [[[0b0101]], [[0b0011]]]


def test_the_gradient_is_the_identity():
    weight = torch.tensor([[0.3, -5.0]], requires_grad=True)
    slopes = torch.tensor([[2.0, -1.0]])
    torch.autograd.backward((Rtn(RtnConfig(), (1, 2)).fake_quantize(weight) * slopes).sum())
    assert weight.grad.tolist() == slopes.tolist()


def test_the_second_latent_makes_up_for_the_first():
    # f = (2, 1) on every token. Row 1, (1, 3), rounds to (2, 2) at one bit: the error (-1, 1). What the
    # second row (8, 10) should become is then (8, 10) + 2 (-1, 1) = (6, 12), but for the damping.
    weight = torch.tensor([[1.0, 3.0], [8.0, 10.0]])
    codes = SparseCodes.from_dense(torch.tensor([[2.0, 1.0]] * 4))
    quantizer = Gptq(GptqConfig(n_bits=2, damping=1e-6), (2, 2))
    first = quantizer.fake_quantize(weight[:1])
    wanted = weight[1:] + 2 * (weight[:1] - first)
    quantized = quantizer.calibrate(weight, Calibration(codes, codes.to_dense() @ weight))
    assert torch.equal(quantized[:1], first)
    torch.testing.assert_close(quantized[1:], quantizer.fake_quantize(wanted), rtol=1e-2, atol=0)


def test_it_is_no_worse_than_rounding_and_stays_as_it_is():
    torch.manual_seed(0)
    weight = torch.randn(48, 20)
    mixed = torch.randn(200, 8) @ torch.randn(8, 48)
    codes = SparseCodes.from_dense(mixed * (mixed > 2))
    for block in (48, 16):
        for n_bits in (1, 2, 3, 4, 6):
            quantizer = Gptq(GptqConfig(n_bits=n_bits, block=block), (48, 20))
            quantized = quantizer.calibrate(weight, Calibration(codes, codes.to_dense() @ weight))
            nearest = quantizer.fake_quantize(weight)
            assert error(codes, weight, quantized) < error(codes, weight, nearest)
            assert torch.equal(quantizer.fake_quantize(quantized), quantized)


def test_latents_that_fire_together_form_a_cluster():
    codes = SparseCodes.from_dense(torch.tensor([[3.0, 0.0, 1.0, 0.0, 0.0], [0.0, 2.0, 0.0, 2.0, 0.0]]))
    assert [sorted(c.tolist()) for c in clusters(codes, 2)] == [[0, 2], [1, 3]]


@pytest.mark.parametrize(("quantizer_class", "config"), [(Rtn, RtnConfig), (Gptq, GptqConfig)])
@pytest.mark.parametrize("n_bits", range(1, 9))
def test_a_row_is_decoded_from_its_packed_codes_at_every_number_of_bits(quantizer_class, config, n_bits):
    quantizer = quantizer_class(config(n_bits=n_bits), (6, 20))
    weight = torch.randn(6, 20)
    lookup = quantizer.lookup(quantizer.pack(weight))
    assert (lookup.points.dtype, lookup.points.numel()) == (torch.float32, 2**n_bits - (n_bits > 4))
    by_hand = lookup.points.double()[lookup.codes.long()] * lookup.scales.double()[:, None]
    assert torch.equal(by_hand.float(), quantizer.fake_quantize(weight))
