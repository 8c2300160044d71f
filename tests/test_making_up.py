"""Rows that make up for what other matrices miss: least squares with a ridge, without the Gram matrix.

Shapes: N tokens, F latents, D width.
"""

from __future__ import annotations

import pytest
import torch

from qsae_core.contracts import SparseCodes
from qsae_core.quantization.making_up import DAMPING, making_up


def test_one_latent_by_hand():
    """Values 1 and 2: X = (1 * 3 + 2 * 4) / (1 + 4 + a), where a is a tenth of the mean energy, 5."""
    codes = SparseCodes.from_dense(torch.tensor([[1.0], [2.0], [0.0]]))
    found = making_up(codes, torch.tensor([[3.0], [4.0], [100.0]]))
    assert found.item() == pytest.approx(11 / 5.5)


@pytest.mark.parametrize("active", [3, 20])
def test_it_is_the_ridge_regression(active):
    """Latents of very different energies, some of which always fire together; sparse codes and dense ones."""
    torch.manual_seed(0)
    n, f, d = 2000, 40, 7
    dense_NF = torch.rand(n, f) * torch.logspace(0, -2, f) * (torch.rand(n, f) < active / f)
    dense_NF[:, 1] = 0.9 * dense_NF[:, 0]
    dense_NF[:, 5] = 0
    missed_ND = dense_NF @ torch.randn(f, d) + torch.randn(n, d)
    gram = dense_NF.T.double() @ dense_NF.double()
    gram += DAMPING * gram.diagonal().mean() * torch.eye(f)
    wanted = torch.linalg.solve(gram, dense_NF.T.double() @ missed_ND.double()).float()
    found = making_up(SparseCodes.from_dense(dense_NF), missed_ND)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())
    assert not found[5].any()


def test_latents_that_never_fire_change_nothing():
    codes = SparseCodes.from_dense(torch.zeros(4, 3))
    assert torch.equal(making_up(codes, torch.ones(4, 2)), torch.zeros(3, 2))
