"""Two's-complement bits by hand: n = 4, gamma = 4; a step is 1/2, weights are -4, -3.5, ..., 3.5."""

import math

import pytest
import torch
from qsae_sae_binary.bits import SATURATION, Bits, bits_of, least_error_step

from qsae_core.kernels.packing import unpack_planes

PLACES = torch.tensor([1.0, 2.0, 4.0, 8.0])
"""T = 1 of the lowest bit is 2, 4 and 8 of the others."""


def make(rows=1, columns=2, n_bits=4, step=0.5, per_row=True, temperature=1.0):
    return Bits((rows, columns), n_bits, step=step, per_row=per_row, temperature=temperature)


def logits(*words, strength=3.0):
    """theta of words such as "1010", the highest bit first."""
    signs = [[2.0 * int(bit) - 1 for bit in reversed(word)] for word in words]
    return strength * torch.tensor([signs]) * PLACES


def test_1010_is_minus_three():
    # -8 + 2 = -6 steps of 4 / 8
    assert make().eval().fake_quantize(logits("1010", "0111")).tolist() == [[-3.0, 3.5]]
    assert make().eval().fake_quantize(logits("1000", "1111")).tolist() == [[-4.0, -0.5]]


def test_soft_weights_are_the_same_sum_over_probabilities():
    # p = 1/2 everywhere: (1 + 2 + 4 - 8) / 2 = -1/2 steps; p = 3/4 or 1/4 for 1010: 8 p - ...
    half = make().soft(torch.zeros(1, 1, 4))
    assert half.item() == pytest.approx(-0.25)
    theta = logits("1010", strength=math.log(3.0))  # sigma(log 3) = 3/4
    # 1/4 * 1 + 3/4 * 2 + 1/4 * 4 - 3/4 * 8 = -3.25 steps
    assert make().soft(theta).item() == pytest.approx(-1.625)
    # at a tenth of the temperature the bits are all but settled
    assert make(temperature=0.1).soft(theta).item() == pytest.approx(-3.0, abs=1e-3)


def test_one_bit_is_zero_or_minus_gamma():
    made = make(n_bits=1, step=4.0).eval()
    assert made.fake_quantize(torch.tensor([[[1.0], [-1.0]]])).tolist() == [[-4.0, 0.0]]


@pytest.mark.parametrize("n_bits", range(1, 9))
def test_every_integer_has_its_bits_and_is_stored_exactly(n_bits):
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    integers = torch.arange(low, high + 1)[None]
    made = make(1, integers.shape[1], n_bits, step=0.25).eval()
    theta = made.logits_of(integers, 2.0)
    assert made.fake_quantize(theta).tolist() == (integers * 0.25).tolist()
    packed = made.pack(theta)
    assert packed.tensors["codes"].shape == (n_bits, 1, -(-integers.shape[1] // 8))
    assert made.unpack(packed).tolist() == (integers * 0.25).tolist()
    # with the sign bit inverted codes ascend
    assert unpack_planes(packed.tensors["codes"], integers.shape[1]).tolist() == (integers - low).tolist()


def test_what_is_stored_serves_bit_for_bit_and_row_by_row():
    torch.manual_seed(0)
    made = make(5, 11, step=0.0123).eval()
    with torch.no_grad():
        made.log_step.add_(torch.randn(5))
    theta = torch.randn(5, 11, 4)
    hard, packed = made.fake_quantize(theta).detach(), made.pack(theta)
    fresh = make(5, 11).eval()
    assert torch.equal(fresh.unpack(packed), hard)
    rows = torch.tensor([3, 0])
    assert torch.equal(fresh.unpack_rows(packed, rows), hard[rows])
    found = fresh.lookup(packed)
    assert torch.equal(found.points[found.codes.int()] * found.scales[:, None], hard)
    assert packed.n_bytes == 4 * 5 * 2 + 2 * 5  # four planes of two bytes a row, and a float16


def test_the_first_planes_are_the_weights_at_fewer_bits():
    made = make().eval()
    packed = made.pack(logits("1010", "0110"))
    # two bits: 10.. is -8 to -5, in the middle -6.5; 01.. is 4 to 7, in the middle 5.5
    level = made.at_level(packed, 2)
    assert level.tensors["codes"].shape[0] == 2
    assert made.unpack(level).tolist() == [[-3.25, 2.75]]
    # one bit: the sign alone, -8 to -1 or 0 to 7
    assert made.unpack(made.at_level(packed, 1)).tolist() == [[-2.25, 1.75]]
    assert made.unpack(made.at_level(packed, 4)).tolist() == [[-3.0, 3.0]]


@pytest.mark.parametrize("hard", [True, False])
def test_gradients_are_those_of_the_soft_sum_in_float64(hard):
    torch.manual_seed(1)
    made = make(3, 5, step=0.3, temperature=0.7)
    theta = torch.randn(3, 5, 4, requires_grad=True)
    weights = torch.randn(3, 5)
    output = made.fake_quantize(theta) if hard else made.soft(theta)
    (output * weights).sum().backward()

    exact = theta.detach().double().requires_grad_()
    log_step = made.log_step.detach().double().requires_grad_()
    places = torch.tensor([1.0, 2.0, 4.0, -8.0], dtype=torch.float64)
    integers = torch.sigmoid(exact / (0.7 * places.abs())) @ places
    if hard:  # the value of the bits, the gradient of the probabilities
        integers = integers + ((exact > 0).double() @ places - integers).detach()
    (integers * log_step.exp()[:, None] * weights.double()).sum().backward()
    torch.testing.assert_close(theta.grad.double(), exact.grad, rtol=1e-3, atol=1e-5)  # scales are float16
    torch.testing.assert_close(made.log_step.grad.double(), log_step.grad, rtol=1e-3, atol=1e-5)


def soft_integers(made, theta):
    share = (made.probabilities(theta) - SATURATION) / (1 - 2 * SATURATION)
    return share @ made.places


def test_recoding_keeps_the_soft_integer_and_makes_the_hard_one_its_neighbour():
    torch.manual_seed(2)
    made = make(1, 200, temperature=0.3)
    theta = 0.5 * torch.randn(1, 200, 4) * PLACES
    before = (torch.sigmoid(theta / (0.3 * PLACES)) - SATURATION).div(1 - 2 * SATURATION).clamp(
        0, 1
    ) @ made.places
    made.recode_(theta)
    after = soft_integers(made, theta)
    torch.testing.assert_close(after, before.clamp(-8, 7), atol=1e-4, rtol=0)
    hard = (theta > 0).float() @ made.places
    assert (hard - after).abs().max() <= 0.5 + 1e-4
    again = theta.clone()
    made.recode_(again)
    torch.testing.assert_close(again, theta, atol=1e-3, rtol=0)


def test_between_zero_and_minus_one_all_bits_change_together():
    made = make(1, 1)
    # u = -0.25: p of each bit is a quarter of the way from 0000 to 1111
    theta = torch.logit(SATURATION + (1 - 2 * SATURATION) * torch.full((1, 1, 4), 0.25)) * PLACES
    assert soft_integers(made, theta).item() == pytest.approx(-0.25, abs=1e-5)
    moved = theta.clone()
    made.recode_(moved)
    torch.testing.assert_close(moved, theta, atol=1e-4, rtol=0)


def test_bits_of_negative_numbers():
    assert bits_of(torch.tensor([-6]), 4).int().tolist() == [[0, 1, 0, 1]]  # 1010, lowest first
    assert bits_of(torch.tensor([-1]), 3).int().tolist() == [[1, 1, 1]]


def test_the_usual_step_is_that_of_least_squared_error():
    torch.manual_seed(0)
    rows = torch.randn(64, 256)
    # uniform quantizers of 4 bits: Max (1960) has 0.335 standard deviations
    assert least_error_step(rows, 4) == pytest.approx(0.335, rel=0.1)
    assert least_error_step(2 * rows, 4) == pytest.approx(2 * least_error_step(rows, 4), rel=1e-4)
