"""The binary-latent SAE by hand: two dimensions, two latents, magnitudes 2 and 3."""

import pytest
import torch
from qsae_sae_binary_latent import BinaryLatentConfig
from qsae_sae_binary_latent.model import BinaryLatentSAE

from qsae_core.coders.binary_latents import SPEED
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts.coder import Budget, CoderShape
from qsae_core.contracts.data import Batch


def make(n_latents=2, width=2, k=2, **options):
    parts = plain_parts(
        k=k,
        code_quantizer=lambda n: pytest.fail("its codes are bits"),
        activation=lambda n: pytest.fail("it has its own activation"),
    )
    config = BinaryLatentConfig(n_latents=n_latents, normalize="none", rotate=False, **options)
    return BinaryLatentSAE(config, CoderShape(width, width), parts)


def worked_example(**options):
    coder = make(**options)
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.eye(2))
        coder.W_dec.weight.copy_(torch.eye(2))
        coder.b_enc.copy_(torch.tensor([-1.0, 0.0]))
        coder.b_dec.copy_(torch.tensor([0.5, 0.0]))
        coder.activation.base.copy_(torch.tensor([2.0, 3.0]))
    return coder


def test_a_latent_is_on_or_off():
    coder = worked_example(auxk_coefficient=0.0).eval()
    # z = (x_0 - 0.5 - 1, x_1): on at 0 already
    x = torch.tensor([[1.5, -0.1], [9.0, 0.2], [1.4, -5.0]])
    codes = coder.encode(x)
    assert codes.to_dense().tolist() == [[2.0, 0.0], [2.0, 3.0], [0.0, 0.0]]
    assert coder(x).tolist() == [[2.5, 0.0], [2.5, 3.0], [0.5, 0.0]]
    # (1, 0.1), (6.5, 2.8), (0.9, 5): squared errors 1.01, 50.09, 25.81
    assert coder.loss(Batch(x, x)).terms["mse"].item() == pytest.approx((1.01 + 50.09 + 25.81) / 3)


def test_a_value_takes_one_bit():
    coder = worked_example().eval()
    codes = coder.encode(torch.tensor([[1.5, -0.1], [9.0, 0.2]]))
    levels = coder.code_levels(codes)
    assert levels.dtype is torch.uint8
    assert torch.equal(levels != 0, codes.active)
    assert levels.max() == 1


def test_the_rule_ranks_pre_activations_and_the_step_comes_afterwards():
    coder = worked_example(k=1).train()
    x = torch.tensor([[3.0, 1.4], [1.0, -0.1]])
    # z = (1.5, 1.4): the first; z = (-0.5, -0.1): the second, which stays in the support but is off
    codes = coder.loss(Batch(x, x)).codes
    assert codes.indices.tolist() == [0, 1]
    assert codes.values.tolist() == [2.0, 0.0]


def test_gradients_are_those_of_the_straight_through_sum_in_float64():
    torch.manual_seed(0)
    coder = make(12, 6, k=4, auxk_coefficient=0.0).train()
    with torch.no_grad():
        coder.b_dec.normal_()
        coder.b_enc.normal_()
        coder.activation.log_magnitude.normal_(std=0.05)
    x = torch.randn(9, 6)
    output = coder.loss(Batch(x, x))
    output.terms["mse"].backward()

    support = torch.zeros(9, 12, dtype=torch.bool)
    support[output.codes.rows, output.codes.indices.long()] = True
    exact = {n: p.detach().double().requires_grad_() for n, p in coder.named_parameters()}
    z = (x.double() - exact["b_dec"]) @ exact["W_enc.weight"].T + exact["b_enc"]
    s = torch.sigmoid(z)
    bits = s + ((z >= 0).double() - s).detach()
    f = bits * support * (SPEED * exact["activation.log_magnitude"]).exp()
    error = x.double() - f @ exact["W_dec.weight"] - exact["b_dec"]
    error.square().sum(1).mean().backward()
    for name, parameter in coder.named_parameters():
        torch.testing.assert_close(
            parameter.grad.double(), exact[name].grad, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_at_first_a_latent_fires_as_often_as_the_rule_will_have_it():
    torch.manual_seed(0)
    coder = make(64, 16, k=4)
    x = torch.randn(4096, 16) + 3.0
    coder.initialize(Batch(x, x))
    z = (x - coder.b_dec) @ coder.W_enc().T + coder.b_enc
    on = (z >= 0).float().mean(0)
    torch.testing.assert_close(on, torch.full((64,), 4 / 64), atol=1 / 4096, rtol=0)
    # of a unit normal's top 1/16 the mean is 1.97 standard deviations
    torch.testing.assert_close(coder.activation.base, torch.full((64,), 1.97), atol=0.2, rtol=0)


def test_auxk_lets_a_dead_latent_whose_bit_is_off_learn():
    coder = worked_example(k=1, auxk_coefficient=1 / 8, k_aux=1).train()
    coder.dead.batches.fill_(63)  # the next batch is the 64th, an eighth one; its tokens 0, 8, ... are read
    coder.begin_training(Budget(steps=10, tokens=80, batch_size=2))
    coder.dead.tokens_since_fired.copy_(torch.tensor([0, 10]))
    x = torch.tensor([[3.0, -1.0]]).repeat(16, 1)
    x[0], x[8] = torch.tensor([3.0, -1.0]), torch.tensor([3.0, -2.0])
    terms = coder.loss(Batch(x, x)).terms
    # residuals x - (2.5, 0) are (0.5, -1), (0.5, -2), their spread 0.5; e_hat = (0, 3 sigma(x_1))
    soft = [3 / (1 + torch.tensor(-v).exp().item()) for v in (-1.0, -2.0)]
    wanted = (0.25 + (-1 - soft[0]) ** 2 + 0.25 + (-2 - soft[1]) ** 2) / 0.5
    assert terms["auxk"].item() == pytest.approx(wanted, rel=1e-5)
    terms["auxk"].backward()
    assert coder.b_enc.grad[1] != 0
