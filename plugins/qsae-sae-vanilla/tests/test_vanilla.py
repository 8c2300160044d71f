"""The ReLU SAE by hand, and its gradient against the dense formula."""

import pytest
import torch
from qsae_sae_vanilla import VanillaConfig
from qsae_sae_vanilla.model import VanillaSAE

from qsae_core.conformance.reference_parts import L1, PlainConfig, plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch

PLAIN = PlainConfig()


def make(n_latents=3, width=2):
    parts = plain_parts(sparsity=lambda n: L1(PLAIN, n))  # coefficient 0.01
    config = VanillaConfig(n_latents=n_latents, normalize="none", rotate=False)
    return VanillaSAE(config, CoderShape(width, width), parts)


def test_encode_decode_and_loss():
    coder = make()
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        coder.W_dec.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.5], [1.0, 1.0]]))
        coder.b_dec.copy_(torch.tensor([1.0, 0.0]))
    x = torch.tensor([[3.0, 4.0]])
    # x - b_dec = (2, 4); latents 2, 4, 0; x_hat = (4, 2) + (1, 0) = (5, 2); squared error 4 + 4
    output = coder.loss(Batch(x, x))
    assert output.codes.to_dense().tolist() == [[2.0, 4.0, 0.0]]
    assert output.terms["mse"].item() == pytest.approx(8.0)
    # the sum, not the mean, over latents of f ||w||: 2 * 2 + 4 * 0.5 = 6
    assert output.terms["sparsity"].item() == pytest.approx(0.01 * 6.0)


def test_gradients_equal_the_dense_formula():
    """In float32, beside the formula in float64."""
    torch.manual_seed(0)
    coder = make(n_latents=24, width=6)
    x = torch.randn(40, 6)
    with torch.no_grad():
        coder.b_dec.normal_()
    parameters = dict(coder.named_parameters())
    sparse = torch.autograd.grad(sum(coder.loss(Batch(x, x)).terms.values()), list(parameters.values()))
    exact = {name: p.detach().double().requires_grad_() for name, p in parameters.items()}
    W_enc, W_dec, b_enc, b_dec = (exact[n] for n in ("W_enc.weight", "W_dec.weight", "b_enc", "b_dec"))
    f = torch.relu((x.double() - b_dec) @ W_enc.T + b_enc)
    x_hat = f @ W_dec + b_dec
    loss = (x - x_hat).square().sum(1).mean() + 0.01 * (f * W_dec.norm(dim=1)).sum(1).mean()
    for ours, dense in zip(sparse, torch.autograd.grad(loss, list(exact.values())), strict=True):
        torch.testing.assert_close(ours.double(), dense, rtol=1e-4, atol=1e-5)
