"""The gradients of lsq, ewgs, dorefa, stochastic, twos-complement and residual-binary, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from qsae_quantizers import (
    DorefaConfig,
    EwgsConfig,
    LsqConfig,
    ResidualBinaryConfig,
    StochasticConfig,
    TwosComplementConfig,
)
from qsae_quantizers.dorefa import Dorefa
from qsae_quantizers.ewgs import Ewgs
from qsae_quantizers.lsq import Lsq
from qsae_quantizers.residual_binary import ResidualBinary
from qsae_quantizers.stochastic import Stochastic
from qsae_quantizers.twos_complement import TwosComplement

FLOAT16 = 2.0**-11


def backward(quantizer, rows, slopes):
    """(w_hat, gradient of the weights) of the loss ``sum w_hat * slopes``."""
    weight = torch.tensor(rows, requires_grad=True)
    w_hat = quantizer.fake_quantize(weight)
    (w_hat * torch.tensor(slopes)).sum().backward()
    return w_hat.detach(), weight.grad


# --- lsq


def with_scale(shape, scale, **options):
    quantizer = Lsq(LsqConfig(**options), shape)
    quantizer.scale.data = torch.as_tensor(scale).view_as(quantizer.scale) / quantizer.unit
    return quantizer


def test_lsq_by_hand():
    # s = 1, points -1.5, -0.5, 0.5, 1.5, reach 2; q - w inside, +-1.5 outside
    quantizer = with_scale((1, 5), 1.0, n_bits=2)
    slopes = [[1.0, 2.0, 3.0, 4.0, 5.0]]
    w_hat, gradient = backward(quantizer, [[0.2, -0.7, 1.4, 2.6, -3.0]], slopes)
    assert w_hat.tolist() == [[0.5, -0.5, 1.5, 1.5, -1.5]]
    assert gradient.tolist() == [[1.0, 2.0, 3.0, 0.0, 0.0]]
    # 1 * .3 + 2 * .2 + 3 * .1 + 4 * 1.5 - 5 * 1.5 = -.5, times 1 / sqrt(5 * 1.5); s = scale * 2 / sqrt(1.5)
    expected = -0.5 / math.sqrt(5 * 1.5) * 2 / math.sqrt(1.5)
    assert quantizer.scale.grad.tolist() == [pytest.approx(expected, rel=1e-5)]


def test_lsq_gradient_of_one_scale_for_the_matrix_and_of_groups():
    rows, slopes = [[0.2, 1.4], [-0.7, 2.6]], [[1.0, 3.0], [2.0, 4.0]]
    whole = with_scale((2, 2), 1.0, n_bits=2, granularity="tensor")
    backward(whole, rows, slopes)
    # .3 + .3 + .4 + 6 = 7 over four weights
    factor = 2 / math.sqrt(1.5)
    assert whole.scale.grad.tolist() == [pytest.approx(7 / math.sqrt(4 * 1.5) * factor, rel=1e-5)]
    single = with_scale((2, 2), [[1.0, 1.0], [1.0, 1.0]], n_bits=2, granularity="group", group_size=1)
    backward(single, rows, slopes)
    expected = [v / math.sqrt(1.5) * factor for v in (0.3, 0.3, 0.4, 6.0)]
    assert single.scale.grad.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_lsq_starts_at_the_papers_scale_or_at_the_best_one():
    weight = torch.tensor([[3.0, 1.0, 1.0, -1.0]])
    paper = Lsq(LsqConfig(n_bits=2, init="lsq"), (1, 4))
    paper.initialize(weight)
    # 2 * mean|w| / sqrt(1.5) with mean|w| = 1.5
    assert (paper.scale * paper.unit).tolist() == [pytest.approx(3 / math.sqrt(1.5))]
    best = Lsq(LsqConfig(n_bits=2), (1, 4))
    best.initialize(weight)
    assert best.eval().fake_quantize(weight).tolist() == weight.tolist()  # step 2


def test_lsq_scales_have_no_sign_and_are_used_as_they_are_stored():
    weight = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    plus, minus = (with_scale((3, 20), sign * torch.tensor([0.3, 0.7, 1.1]), n_bits=3) for sign in (1, -1))
    assert torch.equal(plus.fake_quantize(weight), minus.fake_quantize(weight))
    slopes = torch.ones(3, 20).tolist()
    backward(plus, weight.tolist(), slopes)
    backward(minus, weight.tolist(), slopes)
    assert torch.equal(plus.scale.grad, -minus.scale.grad)
    step = plus.fake_quantize(weight).abs().amin(1) * 2
    assert step.tolist() == [torch.tensor(s).half().item() for s in (0.3, 0.7, 1.1)]


def test_lsq_rows_of_zeros_leave_zero_with_the_first_gradient():
    quantizer = Lsq(LsqConfig(n_bits=2), (2, 4))
    quantizer.initialize(torch.zeros(2, 4))
    w_hat, gradient = backward(quantizer, [[0.0] * 4, [0.0] * 4], [[1.0, 1.0, 1.0, -1.0]] * 2)
    assert not w_hat.any()
    assert gradient.tolist() == [[1.0, 1.0, 1.0, -1.0]] * 2
    assert quantizer.scale.grad.isfinite().all()
    assert quantizer.scale.grad.all()


def test_lsq_without_initialisation_suits_rows_of_norm_one():
    atoms = torch.nn.functional.normalize(torch.randn(20, 512, generator=torch.Generator().manual_seed(0)))
    w_hat = Lsq(LsqConfig(n_bits=4), (20, 512)).eval().fake_quantize(atoms)
    assert (atoms - w_hat).square().sum(1).max() < 0.05


# --- ewgs: [3, -1, 2, .1] at two bits with step 2 lies at 1.5, -.5, 1, .05 and goes to 1.5, -.5, 1.5, .5


def test_ewgs_by_hand():
    quantizer = Ewgs(EwgsConfig(n_bits=2, scale="absmax", delta=0.2), (1, 4))
    _, gradient = backward(quantizer, [[3.0, -1.0, 2.0, 0.1]], [[1.0, 1.0, 1.0, -2.0]])
    # errors 0, 0, -.5, -.45: factors 1, 1, 1 - .1, 1 + .09
    assert gradient.tolist() == [pytest.approx([1.0, 1.0, 0.9, -2.18])]


def test_ewgs_on_ternary_and_binary_grids_counts_half_a_distance_at_most():
    # the best scale of [4, 4, -1.5, 0, 20] would be 20; absmean is 5.9: points 1, 1, 0, 0, 1
    quantizer = Ewgs(EwgsConfig(scale="absmean", delta=0.5), (1, 5))
    _, gradient = backward(quantizer, [[4.0, 4.0, -1.5, 0.0, 20.0]], [[1.0] * 5])
    errors = [4 / 5.9 - 1, 4 / 5.9 - 1, -1.5 / 5.9, 0.0, 0.5]
    assert gradient.tolist() == [pytest.approx([1 + 0.5 * e for e in errors], rel=1e-3)]
    binary = Ewgs(EwgsConfig(grid="binary", delta=0.5), (1, 2))
    _, gradient = backward(binary, [[3.0, 1.0]], [[1.0, 1.0]])  # scale 2, distance 2: errors .25, -.25
    assert gradient.tolist() == [[1.125, 0.875]]


def test_ewgs_stops_what_is_clipped_and_without_delta_is_ste():
    row = [1.0, 3.0] * 400 + [4.5]
    _, gradient = backward(Ewgs(EwgsConfig(n_bits=2, delta=0), (1, 801)), [row], [[1.0] * 801])
    assert gradient[0].tolist() == [1.0] * 800 + [0.0]


# --- dorefa


def test_dorefa_by_hand():
    # tanh 1, .5, .1 over tanh 1: 1, .607, .131, to the points 1, 1/3, 1/3 of two bits
    # s = (1 + .5 / 3 + .1 / 3) / (1 + 1/9 + 1/9) = 1.2 / (11/9)
    quantizer = Dorefa(DorefaConfig(n_bits=2, unit="one"), (1, 3))
    w_hat, gradient = backward(quantizer, [[1.0, -0.5, 0.1]], [[1.0, 2.0, 3.0]])
    s = 1.2 * 9 / 11
    assert w_hat.tolist() == [pytest.approx([s, -s / 3, s / 3], rel=FLOAT16)]
    slopes = [s * (1 - math.tanh(w) ** 2) / math.tanh(1.0) for w in (1.0, 0.5, 0.1)]
    assert gradient.tolist() == [pytest.approx([slopes[0], 2 * slopes[1], 3 * slopes[2]], rel=FLOAT16)]


def test_dorefa_in_units_of_the_rms_by_hand():
    # mean square of [1, 1, 1, 5] is 7: tanh of 1 / sqrt 7 and 5 / sqrt 7 is .361 and .955, a ratio of .378,
    # nearer to 1/3 than to 1; s = (5 + 3 / 3) / (1 + 3 / 9) = 4.5
    quantizer = Dorefa(DorefaConfig(n_bits=2), (1, 4))
    w_hat, gradient = backward(quantizer, [[1.0, 1.0, -1.0, 5.0]], [[1.0] * 4])
    assert w_hat.tolist() == [pytest.approx([1.5, 1.5, -1.5, 4.5])]
    u, top = math.sqrt(7), math.tanh(5 / math.sqrt(7))
    slopes = [4.5 * (1 - math.tanh(w / u) ** 2) / (u * top) for w in (1, 1, 1, 5)]
    assert gradient.tolist() == [pytest.approx(slopes, rel=1e-5)]


def test_one_bit_of_dorefa_is_the_papers():
    weight = torch.randn(20, 33, generator=torch.Generator().manual_seed(0))
    w_hat = Dorefa(DorefaConfig(n_bits=1, granularity="tensor"), (20, 33)).eval().fake_quantize(weight)
    torch.testing.assert_close(w_hat, weight.sign() * weight.abs().mean(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("granularity", ["row", "tensor"])
def test_dorefa_follows_tanh_with_many_bits(granularity):
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    w_hat = Dorefa(DorefaConfig(n_bits=8, granularity=granularity), (6, 40)).eval().fake_quantize(weight)
    block = (lambda t: t.mean(1, keepdim=True)) if granularity == "row" else torch.mean
    limited = torch.tanh(weight / block(weight.square()).sqrt())
    scale = block(w_hat * limited) / block(limited.square())
    torch.testing.assert_close(w_hat, scale * limited, rtol=0, atol=0.01 * w_hat.abs().max().item())


# --- stochastic


def test_stochastic_rounding_is_right_on_average_and_to_neighbours():
    row = torch.tensor([[-3.5, -1.2, 0.1, 0.4, 2.9, 3.5]])
    quantizer = Stochastic(StochasticConfig(n_bits=3, scale="absmax"), (1, 6))
    torch.manual_seed(0)
    draws = torch.cat([quantizer.train().fake_quantize(row) for _ in range(4000)])
    assert draws.unique().tolist() == [-3.5, -1.5, -0.5, 0.5, 2.5, 3.5]
    # the variance of a draw is at most 1/4, that of the mean 1/16000
    torch.testing.assert_close(draws.mean(0), row[0], rtol=0, atol=5 / math.sqrt(16000))
    assert quantizer.eval().fake_quantize(row).tolist() == [[-3.5, -1.5, 0.5, 0.5, 2.5, 3.5]]


def test_stochastic_draws_repeat_with_the_seed_and_differ_between_steps():
    weight = torch.randn(10, 40, generator=torch.Generator().manual_seed(0))
    quantizer = Stochastic(StochasticConfig(n_bits=2), (10, 40)).train()
    runs = []
    for _ in range(2):
        torch.manual_seed(7)
        runs.append([quantizer.fake_quantize(weight) for _ in range(2)])
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[0][1])
    assert not quantizer.by_row


def test_stochastic_packs_the_nearest_points_in_training_too():
    weight = torch.randn(10, 40, generator=torch.Generator().manual_seed(0))
    quantizer = Stochastic(StochasticConfig(n_bits=2), (10, 40)).train()
    stored = quantizer.unpack(quantizer.pack(weight))
    assert torch.equal(stored, quantizer.eval().fake_quantize(weight))


def test_stochastic_passes_the_gradient_where_nothing_is_clipped():
    quantizer = Stochastic(StochasticConfig(n_bits=2), (1, 801)).train()
    _, gradient = backward(quantizer, [[1.0, 3.0] * 400 + [4.5]], [[2.0] * 801])
    assert gradient[0].tolist() == [2.0] * 800 + [0.0]


# --- the others


def test_twos_complement_stops_half_a_step_beyond_the_outermost_integers():
    # step 1 of two bits: -2, -1, 0, 1, reach -2.5 to 1.5
    row = [-2.0, 1.0, 0.0, -1.0] * 200
    quantizer = TwosComplement(TwosComplementConfig(n_bits=2), (1, 804))
    w_hat, gradient = backward(quantizer, [[*row, -2.4, -2.6, 1.4, 1.6]], [[1.0] * 804])
    step = w_hat[0, 1].item()
    assert step == pytest.approx(1.0, rel=0.01)
    assert gradient[0].tolist() == [1.0] * 801 + [0.0, 1.0, 0.0]


def test_residual_binary_passes_every_gradient():
    quantizer = ResidualBinary(ResidualBinaryConfig(n_bits=3), (2, 4))
    _, gradient = backward(quantizer, [[9.0, -0.1, 0.2, 0.0], [0.0] * 4], [[1.0, 2.0, 3.0, 4.0]] * 2)
    assert gradient.tolist() == [[1.0, 2.0, 3.0, 4.0]] * 2
