"""The gated SAE by hand."""

import math

import pytest
import torch
from qsae_sae_gated import GatedConfig
from qsae_sae_gated.model import GatedSAE

from qsae_core.conformance.reference_parts import L1, PlainConfig, plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch


def worked_example():
    config = GatedConfig(n_latents=2, normalize="none", rotate=False)
    coder = GatedSAE(config, CoderShape(2, 2), plain_parts(sparsity=lambda n: L1(PlainConfig(), n)))
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.eye(2))
        coder.W_dec.weight.copy_(torch.eye(2))
        coder.b_enc.copy_(torch.tensor([-1.0, -3.0]))  # b_gate
        coder.activation.r.copy_(torch.tensor([math.log(2.0), 0.0]))
        coder.activation.b_mag.copy_(torch.tensor([0.5, 0.0]))
    return coder


X = torch.tensor([[3.0, 2.0]])
# pi = (2, -1): latent 0 is open; f = (2 * 3 + 0.5, 0) = (6.5, 0)


def test_gate_and_magnitude():
    coder = worked_example().eval()
    assert coder.encode(X).to_dense()[0].tolist() == pytest.approx([6.5, 0.0])
    assert coder(X)[0].tolist() == pytest.approx([6.5, 0.0])


def test_the_three_terms():
    coder = worked_example()
    terms = coder.loss(Batch(X, X)).terms
    assert terms["mse"].item() == pytest.approx(3.5**2 + 4)  # (3, 2) - (6.5, 0)
    assert terms["gate"].item() == pytest.approx(1 + 4)  # (3, 2) - (2, 0)
    assert terms["sparsity"].item() == pytest.approx(0.01 * 2)  # on ReLU(pi), not on 6.5


def test_the_auxiliary_term_alone_trains_the_gate_and_leaves_the_decoder():
    coder = worked_example()
    terms = coder.loss(Batch(X, X)).terms
    terms["mse"].backward(retain_graph=True)
    assert coder.b_enc.grad is None or not coder.b_enc.grad.any()
    coder.zero_grad()
    terms["gate"].backward()
    # d/dpi_0 = -2 (3 - 2) = -2
    assert coder.b_enc.grad.tolist() == [-2.0, 0.0]
    assert coder.W_dec.weight.grad is None or not coder.W_dec.weight.grad.any()
    assert coder.b_dec.grad is None or coder.b_dec.grad.tolist() == [2.0, 0.0]  # through pi alone


def test_an_open_gate_with_no_magnitude_still_learns():
    coder = worked_example()
    with torch.no_grad():
        coder.activation.b_mag.fill_(-100.0)
    output = coder.loss(Batch(X, X))
    output.terms["gate"].backward()
    assert isinstance(output.codes, SparseCodes)
    assert coder.b_enc.grad[0].item() == pytest.approx(-2.0)
