"""The residual-quantized SAE by hand: two dimensions, two levels of two latents."""

import pytest
import torch
from pydantic import ValidationError
from qsae_sae_residual_quantized import ResidualQuantizedConfig
from qsae_sae_residual_quantized.model import ResidualQuantizedSAE, penalty_weights

from qsae_core.coders.binary_latents import SPEED
from qsae_core.conformance.reference_parts import L1, PlainConfig, TopK, TopKConfig, plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch

PLAIN = PlainConfig()


def make(n_latents=4, n_levels=2, width=2, k=1, rule=None, **options):
    parts = plain_parts(
        code_quantizer=lambda n: pytest.fail("its codes are bits"),
        activation=lambda n: pytest.fail("it has its own activation"),
        sparsity=rule or (lambda n: TopK(TopKConfig(k=k), n)),
    )
    config = ResidualQuantizedConfig(
        n_latents=n_latents, n_levels=n_levels, normalize="none", rotate=False, **options
    )
    return ResidualQuantizedSAE(config, CoderShape(width, width), parts)


def worked_example(**options):
    coder = make(auxk_coefficient=0.0, secant=False, **options)
    with torch.no_grad():
        rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
        coder.W_enc.weight.copy_(rows)
        coder.W_dec.weight.copy_(rows)
        coder.b_enc.fill_(-0.5)
        coder.b_dec.copy_(torch.tensor([1.0, 0.0]))
        coder.activation.base.copy_(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    return coder


def test_a_level_codes_twice_what_was_left_over():
    coder = worked_example().eval()
    x = torch.tensor([[6.0, 1.0]])
    # r_0 = (5, 1): latent 0, x_hat_0 = (4, 0); r_1 = 2 (1, 1) = (2, 2): z = (1.5, 1.5), the first of the
    # two, x_hat_1 = (2, 0); b_dec + (4, 0) + (2, 0) / 2 = (6, 0)
    assert coder.encode(x).to_dense().tolist() == [[4.0, 0.0, 1.0, 0.0]]
    assert coder(x).tolist() == [[6.0, 0.0]]
    assert coder.at_level(1)(x).tolist() == [[5.0, 0.0]]
    output = coder.loss(Batch(x, x))
    # 1/2 ||r_0 - x_hat_0||^2 + 1/2 ||r_1 - x_hat_1||^2 = 1/2 (1 + 1) + 1/2 (0 + 4)
    assert output.terms["mse"].item() == pytest.approx(1.0 + 2.0)
    assert output.reconstruction.tolist() == [[6.0, 0.0]]  # the last level alone would be (2, 0)


def test_fvu_of_every_level():
    coder = worked_example().eval()
    x = torch.tensor([[6.0, 1.0], [1.0, 1.0]])
    # the second: r_0 = (0, 1), latent 1 with 3: left (0, -2); r_1 = (0, -4): nothing; b_dec + (0, 3)
    assert coder(x)[1].tolist() == [1.0, 3.0]
    values = coder.loss(Batch(x, x)).values
    spread = 2 * 2.5**2  # around (3.5, 1)
    assert values["fvu_1"].item() == pytest.approx((2 + 4) / spread)
    assert values["fvu_2"].item() == pytest.approx((1 + 4) / spread)


def test_prices_of_levels():
    assert penalty_weights(6) == [1, 2.5, 4, 8, 16, 32]
    coder = worked_example(rule=lambda n: L1(PLAIN, n)).train()
    x = torch.tensor([[6.0, 1.0]])
    # level 0: z = (4.5, 0.5): both, (4, 3), left (1, -2); r_1 = (2, -4): z = (1.5, -4.5): the first, 2 / 2
    # beside half the normalised error, as the loss has half the squared one
    assert coder.loss(Batch(x, x)).terms["sparsity"].item() == pytest.approx(0.01 * (7 + 2.5 * 1) / 2)


@pytest.mark.parametrize(
    ("n_latents", "prefixes"), [(8, (2, 4, 6, 8)), (10, (2, 4, 6, 10)), (4, (1, 2, 3, 4))]
)
def test_sizes_of_levels(n_latents, prefixes):
    config = ResidualQuantizedConfig(n_latents=n_latents)
    assert config.prefixes() == prefixes
    for level in range(1, 5):
        assert config.first_groups(level).prefixes() == prefixes[:level]


def test_more_levels_than_latents_are_refused():
    with pytest.raises(ValidationError, match="4 levels need at least as many latents"):
        ResidualQuantizedConfig(n_latents=3)


def reference(coder, x, support, joint, secant):
    """The loss in float64, with the straight-through bits; gradients by autograd."""
    exact = {n: p.detach().double().requires_grad_() for n, p in coder.named_parameters()}
    W_enc, W_dec = exact["W_enc.weight"], exact["W_dec.weight"]
    magnitudes = coder.activation.base.double() * (SPEED * exact["activation.log_magnitude"]).exp()
    r = x.double() - exact["b_dec"]
    total = torch.zeros((), dtype=torch.float64)
    for latents in coder.groups:
        z = r @ W_enc[latents].T + exact["b_enc"][latents]
        s, hard = torch.sigmoid(z), (z >= 0).double()
        bits = (s + (hard - s).detach()) * support[:, latents]
        x_hat = (bits * magnitudes[latents]) @ W_dec[latents]
        total = total + (r - x_hat).square().sum(1).mean() / 2
        if secant:
            curvature = (W_dec[latents].norm(dim=1) * magnitudes[latents]).square().detach()
            slope_to_secant = (0.5 - hard) * curvature * support[:, latents] / len(x)
            total = total + (slope_to_secant * (s - s.detach())).sum()
        r = 2 * (r - x_hat if joint else (r - x_hat).detach())
    total.backward()
    return {n: p.grad for n, p in exact.items()}


@pytest.mark.parametrize(("joint", "secant"), [(False, False), (False, True), (True, False)])
def test_gradients_are_those_of_the_formula_in_float64(joint, secant):
    torch.manual_seed(0)
    coder = make(12, 3, 6, k=2, auxk_coefficient=0.0, joint_gradient=joint, secant=secant).train()
    with torch.no_grad():
        coder.b_dec.normal_()
        coder.b_enc.normal_()
        coder.activation.base.uniform_(0.5, 2.0)
        coder.activation.log_magnitude.normal_(std=0.05)
    x = torch.randn(9, 6)
    output = coder.loss(Batch(x, x))
    torch.stack(list(output.terms.values())).sum().backward()
    support = torch.zeros(9, 12, dtype=torch.double)
    support[output.codes.rows, output.codes.indices.long()] = 1.0
    wanted = reference(coder, x, support, joint, secant)
    for name, parameter in coder.named_parameters():
        torch.testing.assert_close(
            parameter.grad.double(), wanted[name], rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_levels_begin_with_biases_for_the_residual_that_they_get():
    torch.manual_seed(0)
    coder = make(64, 2, 16, k=4)
    x = torch.randn(2048, 16) + 1.0
    coder.initialize(Batch(x, x))
    coder.train()
    for level in coder.each_level(coder.norm_in(x), coder.W_enc.rows(), coder.W_dec.rows()):
        z = level.residual @ coder.W_enc()[level.latents].T + coder.b_enc[level.latents]
        on = (z >= 0).float().mean(0)
        assert 0.05 < on.mean().item() < 0.2  # 4 of 32
