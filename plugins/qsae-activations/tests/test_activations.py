"""Activations on numbers worked by hand."""

from __future__ import annotations

import torch
from qsae_activations import IdentityConfig, ReLUConfig
from qsae_activations.identity import Identity
from qsae_activations.relu import ReLU


def test_relu_keeps_what_is_positive():
    z = torch.tensor([[-2.0, 0.0, 0.5], [3.0, -1e-6, 1e4]], requires_grad=True)
    latents = ReLU(ReLUConfig(), 3)(z)
    assert latents.tolist() == [[0.0, 0.0, 0.5], [3.0, 0.0, 1e4]]
    latents.sum().backward()
    assert z.grad.tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]


def test_identity_keeps_signs():
    z = torch.tensor([[-2.0, 0.0, 0.5]], requires_grad=True)
    latents = Identity(IdentityConfig(), 3)(z)
    assert latents.tolist() == [[-2.0, 0.0, 0.5]]
    (latents * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert z.grad.tolist() == [[1.0, 2.0, 3.0]]


def test_gathered_entries_give_what_the_dense_tensor_gives():
    z = torch.tensor([[-1.0, 2.0], [3.0, -4.0]])
    entries, index = z[[0, 1, 1], [1, 0, 1]], torch.tensor([1, 0, 1])
    assert ReLU(ReLUConfig(), 2)(entries, index).tolist() == [2.0, 3.0, 0.0]
    assert Identity(IdentityConfig(), 2)(entries, index).tolist() == [2.0, 3.0, -4.0]


def test_a_nan_is_not_hidden():
    assert ReLU(ReLUConfig(), 1)(torch.tensor([[float("nan")]])).isnan().all()
