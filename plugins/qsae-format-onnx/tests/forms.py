"""Forms that tests are about, and how close float32 sums come to the formula in float64."""

from __future__ import annotations

import torch

from qsae_core.conformance.toy_forms import forms
from qsae_core.contracts import DenseForm

ROUNDING = 1e-5
"""By which float32 sums may differ, relative to the largest of them."""
DENSE = {name: form for name, form in forms().items() if isinstance(form, DenseForm)}
BATCHES = (1, 7, 64)

# z = (x1, x2, x1 + x2 - 1) at x = (2, 1): (2, 1, 2); atoms (1, 0), (0, 1), (1, 1); b_dec = (10, 20)
BY_HAND = {
    "W_enc": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
    "b_enc": torch.tensor([0.0, 0.0, -1.0]),
    "W_dec": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
    "b_dec": torch.tensor([10.0, 20.0]),
}


def twins(k=5):
    """Each latent twice, with the same atom: at an odd k one of two equals stays."""
    form = DENSE["TopK SAE"]
    doubled = {
        name: tensor.repeat_interleave(2, 0) for name, tensor in form.tensors().items() if name != "b_dec"
    }
    return DenseForm(**doubled, b_dec=form.b_dec, k=k)


def assert_close(actual, wanted, rounding=ROUNDING):
    assert actual.shape == wanted.shape
    error, size = (actual.double() - wanted.double()).abs().max().item(), wanted.abs().max().item()
    assert error <= rounding * size, f"off by {error:.3g} of {size:.3g}"
