"""Routing and nesting together, by hand."""

import pytest
import torch
from qsae_sae_route_matryoshka import RouteMatryoshkaConfig
from qsae_sae_route_matryoshka.model import RouteMatryoshkaSAE

from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch


def worked_example():
    config = RouteMatryoshkaConfig(
        n_latents=2, group_sizes=(1, 1), normalize="none", rotate=False, auxk_coefficient=0.0, balance=0.0
    )
    coder = RouteMatryoshkaSAE(config, CoderShape(2, 2, 2, 2), plain_parts(k=1))
    coder.sparsity.fixed_k = 2
    with torch.no_grad():
        coder.W_route.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))  # layer 0 for positive vectors
        coder.W_enc.weight.copy_(torch.eye(2))
        coder.W_dec.weight.copy_(torch.eye(2))
    return coder


def test_the_relative_error_is_the_mean_over_prefixes():
    coder = worked_example()
    x = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    # x_r = (3, 4); prefix 1 leaves (0, 4): 16 / 25; prefix 2 leaves nothing
    output = coder.loss(Batch(x, x))
    assert output.terms["relative_mse"].item() == pytest.approx(16 / 25 / 2)
    torch.testing.assert_close(output.reconstruction, torch.tensor([[3.0, 4.0]]))


def test_a_level_keeps_the_router():
    coder = worked_example().eval()
    coder.sparsity.fixed_k = 1
    x = torch.tensor([[[5.0, 4.0], [0.0, 0.0]]])
    level = coder.at_level(1)
    assert level(x).tolist() == [[5.0, 0.0]]
    assert torch.equal(level.target(Batch(x, x)), coder.target(Batch(x, x)))
