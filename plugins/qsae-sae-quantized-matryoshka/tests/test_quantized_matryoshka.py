"""The quantized matryoshka SAE by hand: three dimensions, three levels of one, one and two latents."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from qsae_sae_quantized_matryoshka import QuantizedMatryoshkaConfig
from qsae_sae_quantized_matryoshka.model import QuantizedMatryoshkaSAE

from qsae_core.coders.binary_latents import SPEED
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch


def make(n_latents=4, n_levels=3, width=3, k=1, **options):
    parts = plain_parts(
        k=k,
        code_quantizer=lambda n: pytest.fail("its codes are bits"),
        activation=lambda n: pytest.fail("it has its own activation"),
    )
    config = QuantizedMatryoshkaConfig(
        n_latents=n_latents, n_levels=n_levels, normalize="none", rotate=False, **options
    )
    return QuantizedMatryoshkaSAE(config, CoderShape(width, width), parts)


def worked_example(**options):
    coder = make(auxk_coefficient=0.0, prefix_weight=0.5, **options)
    with torch.no_grad():
        rows = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 0, -1.0]])
        coder.W_enc.weight.copy_(rows)
        coder.W_dec.weight.copy_(rows)
        coder.b_enc.fill_(-0.25)
        coder.activation.base.copy_(torch.tensor([4.0, 2.0, 1.0, 1.0]))
    return coder


@pytest.mark.parametrize(
    ("n_latents", "n_levels", "sizes"),
    [
        (32768, 4, [4096, 4096, 8192, 16384]),
        (2050, 4, [256, 256, 512, 1026]),  # what does not divide goes to the last level
        (10, 1, [10]),
        (9, 2, [4, 5]),
    ],
)
def test_sizes_of_levels(n_latents, n_levels, sizes):
    config = QuantizedMatryoshkaConfig(n_latents=n_latents, n_levels=n_levels)
    prefixes = config.prefixes()
    assert np.diff((0, *prefixes)).tolist() == sizes
    for level in range(1, n_levels + 1):  # a level's own configuration has the same sizes
        assert config.first_groups(level).prefixes() == prefixes[:level]


def test_more_levels_than_latents_allow_are_refused():
    with pytest.raises(ValidationError, match="4 levels need 8 latents"):
        QuantizedMatryoshkaConfig(n_latents=7, n_levels=4)


def test_every_level_adds_its_atoms():
    coder = worked_example().eval()
    x = torch.tensor([[5.0, 3.0, -2.0]])
    # the last level is twice as large, and keeps two latents
    assert [rule.fixed_k for rule in coder.sparsity.each] == [1, 1, 2]
    assert coder.encode(x).to_dense().tolist() == [[4.0, 2.0, 0.0, 1.0]]
    assert coder(x).tolist() == [[4.0, 2.0, -1.0]]
    # r_0 = (4, 0, 0), r_1 = (4, 2, 0), r_2 = (4, 2, -1): errors 1 + 9 + 4, 1 + 1 + 4, 1 + 1 + 1
    output = coder.loss(Batch(x, x))
    assert output.terms["mse"].item() == pytest.approx((0.5 * 14 + 0.5 * 6 + 3) / 2)
    assert coder.at_level(1)(x).tolist() == [[4.0, 0.0, 0.0]]
    assert coder.at_level(2)(x).tolist() == [[4.0, 2.0, 0.0]]
    two = torch.cat([x, -x])  # of -x = (-5, -3, 2) latent 2 alone is on; the variance is 38
    values = coder.loss(Batch(two, two)).values
    assert [values[f"fvu_{i}"].item() for i in (1, 2, 3)] == pytest.approx(
        [(14 + 38) / 76, (6 + 38) / 76, (3 + 35) / 76]
    )


def test_atoms_halve_from_level_to_level():
    torch.manual_seed(0)
    coder = make(64, 4, 16, k=2, gamma=8.0)
    x = torch.randn(512, 16)
    coder.initialize(Batch(x, x))
    # 2^(n - i - 2) gamma / 2^(n - 1) with n = 4: 4, 2, 1, 1/2 steps of 1, times gamma / 8 = 1
    assert coder.activation.base.tolist() == [4.0] * 8 + [2.0] * 8 + [1.0] * 16 + [0.5] * 32
    fitted = make(64, 4, 16, k=2)
    fitted.initialize(Batch(x, x))
    base = fitted.activation.base
    assert (base[0] / base[-1]).item() == pytest.approx(8.0)
    assert base[0].item() == pytest.approx(2.0, rel=0.05)  # half of sqrt(16)


def reference(coder, x, support, joint, secant):
    """The loss in float64, with the straight-through bits; gradients by autograd."""
    exact = {n: p.detach().double().requires_grad_() for n, p in coder.named_parameters()}
    z = (x.double() - exact["b_dec"]) @ exact["W_enc.weight"].T + exact["b_enc"]
    s, hard = torch.sigmoid(z), (z >= 0).double()
    magnitudes = coder.activation.base.double() * (SPEED * exact["activation.log_magnitude"]).exp()
    bits = (s + (hard - s).detach()) * support
    f = bits * magnitudes
    weights: list[float] = []
    total, before = torch.zeros((), dtype=torch.float64), exact["b_dec"].expand(x.shape)
    for i, (start, end) in enumerate(zip((0, *coder.prefixes), coder.prefixes, strict=False)):
        part = f[:, start:end] @ exact["W_dec.weight"][start:end]
        r = before + part if joint or i == 0 else before.detach() + part
        weights.append(1.0 if end == coder.n_latents else coder.config.prefix_weight)
        total = total + weights[-1] * (x.double() - r).square().sum(1).mean() / 2
        before = r
    if secant:
        norms = exact["W_dec.weight"].norm(dim=1).detach() * magnitudes.detach()
        ends = torch.tensor(coder.prefixes)
        level = torch.bucketize(torch.arange(len(norms)), ends, right=True)
        own = torch.tensor(weights).double()
        sums = (own.flip(0).cumsum(0).flip(0) if joint else own)[level]
        # the change of every parabola from 0 to 1, instead of the slope where the bit is
        slope_to_secant = (0.5 - hard) * norms.square() * sums * support / len(x)
        total = total + (slope_to_secant * (s - s.detach())).sum()
    total.backward()
    return {n: p.grad for n, p in exact.items()}


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("secant", [False, True])
def test_gradients_are_those_of_the_formula_in_float64(joint, secant):
    torch.manual_seed(0)
    coder = make(16, 3, 6, k=2, auxk_coefficient=0.0, joint_gradient=joint, secant=secant).train()
    with torch.no_grad():
        coder.b_dec.normal_()
        coder.b_enc.normal_()
        coder.activation.base.uniform_(0.5, 2.0)
        coder.activation.log_magnitude.normal_(std=0.05)
    x = torch.randn(9, 6)
    output = coder.loss(Batch(x, x))
    torch.stack(list(output.terms.values())).sum().backward()
    support = torch.zeros(9, 16, dtype=torch.double)
    support[output.codes.rows, output.codes.indices.long()] = 1.0
    wanted = reference(coder, x, support, joint, secant)
    for name, parameter in coder.named_parameters():
        torch.testing.assert_close(
            parameter.grad.double(), wanted[name], rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_secant_is_what_a_flip_changes():
    coder = worked_example(n_levels=1, secant=True, k=4).train()
    x = torch.tensor([[5.0, 3.0, -0.3]])

    def error(bits):
        f = torch.tensor(bits) * torch.tensor([4.0, 2.0, 1.0, 1.0])
        return ((x[0] - f @ coder.W_dec().detach()).square().sum() / 2).item()

    terms = coder.loss(Batch(x, x)).terms
    assert terms["secant"].item() == 0.0
    torch.stack(list(terms.values())).sum().backward()
    z = (x @ coder.W_enc().T + coder.b_enc).detach()[0]
    hard = (z >= 0).float().tolist()
    slopes = torch.sigmoid(z) * (1 - torch.sigmoid(z))
    for j in range(4):
        on, off = ([*hard[:j], value, *hard[j + 1 :]] for value in (1.0, 0.0))
        wanted = (error(on) - error(off)) * slopes[j].item()
        assert coder.b_enc.grad[j].item() == pytest.approx(wanted, rel=1e-4, abs=1e-6), j
