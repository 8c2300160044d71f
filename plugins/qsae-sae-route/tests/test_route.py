"""RouteSAE by hand: two layers of two dimensions."""

import math

import pytest
import torch
from qsae_sae_route import RouteConfig
from qsae_sae_route.model import RouteSAE

from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch

X = torch.tensor([[[3.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 5.0]]])
"""Mean over layers: (1.5, 0.5) and (0.5, 2.5)."""


def worked_example(**options):
    config = RouteConfig(
        n_latents=2, normalize="none", rotate=False, auxk_coefficient=0.0, **{"balance": 0.0, **options}
    )
    coder = RouteSAE(config, CoderShape(2, 2, 2, 2), plain_parts(k=1))
    with torch.no_grad():
        coder.W_route.copy_(torch.eye(2))  # layer l scores dimension l of the mean
        coder.W_enc.weight.copy_(torch.eye(2))
        coder.W_dec.weight.copy_(torch.eye(2))
    return coder


def test_each_token_takes_one_layer_and_is_compared_with_it():
    coder = worked_example().eval()
    batch = Batch(X, X)
    # scores (1.5, 0.5) take layer 0, (0.5, 2.5) layer 1
    assert coder.target(batch).tolist() == [[3.0, 0.0], [0.0, 5.0]]
    assert coder.encode(X).to_dense().tolist() == [[3.0, 0.0], [0.0, 5.0]]
    assert torch.equal(coder(X), coder.target(batch))


def test_soft_routing_mixes():
    coder = worked_example(routing="soft").eval()
    p = 1 / (1 + math.exp(-1))  # softmax of (1.5, 0.5)
    expected = torch.tensor([3 * p, 1 - p])
    torch.testing.assert_close(coder.target(Batch(X, X))[0], expected)
    assert coder.encode(X[:1]).to_dense()[0, 0].item() == pytest.approx(3 * p)


def test_the_error_is_relative():
    coder = worked_example()
    with torch.no_grad():
        coder.W_dec.weight.copy_(torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    # (3, 0) becomes (0, 3): 18 / 9 = 2; (0, 5) stays: 0
    assert coder.loss(Batch(X, X)).terms["relative_mse"].item() == pytest.approx(1.0)
    # and so a larger vector with the same relative error costs the same
    assert coder.loss(Batch(10 * X, 10 * X)).terms["relative_mse"].item() == pytest.approx(1.0)


def test_the_balance_term_by_hand():
    coder = worked_example(balance=0.5)
    p0, p1 = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2))  # layer 0 in both tokens
    # L sum_l share_l mean p_l = 2 (0.5 mean p_0 + 0.5 mean p_1) = 1, whatever p is: shares are equal
    assert coder.loss(Batch(X, X)).terms["balance"].item() == pytest.approx(0.5)
    one = X[:1].expand(2, 2, 2)
    assert coder.loss(Batch(one, one)).terms["balance"].item() == pytest.approx(0.5 * 2 * p0)
    assert p1 < 0.5 < p0


def test_training_and_use_see_the_same_vector_and_the_router_learns():
    coder = worked_example()
    with torch.no_grad():
        coder.W_dec.weight.copy_(torch.tensor([[0.8, 0.6], [0.6, 0.8]]))
        coder.b_enc.fill_(0.5)
    output = coder.loss(Batch(X, X))
    torch.testing.assert_close(output.target, coder.eval().target(Batch(X, X)))
    sum(output.terms.values()).backward()
    assert coder.W_route.grad.abs().sum() > 0


def test_layer_norm_makes_the_target_a_normed_vector():
    coder = worked_example(layer_norm=True).eval()
    target = coder.target(Batch(100 * X, 100 * X))
    torch.testing.assert_close(target.mean(1), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(target.square().mean(1), torch.ones(2), atol=1e-3, rtol=0)
