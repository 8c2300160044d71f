"""Atoms of one dictionary: by hand, and against all pairs in float64."""

from __future__ import annotations

import pytest
import torch
from qsae_evaluation_similarity.within import within

from qsae_core.measuring import random_directions, unit_rows


def test_by_hand() -> None:
    """Rows e0, (.96, .28), -e0, zero: cosines .96, -1, -.96, so one pair of three is above .9; row 2 has
    neighbours at -1 and -.96."""
    rows = unit_rows(torch.tensor([[2.0, 0.0], [0.96, 0.28], [-3.0, 0.0], [0.0, 0.0]]))
    found = within(rows, 0.9)
    assert found.rows.tolist() == [0, 1, 2]
    assert found.nearest.which.tolist() == [1, 0, 1]
    assert found.nearest.cosines.tolist() == pytest.approx([0.96, 0.96, -0.96])
    assert found.mean_abs == pytest.approx((0.96 + 1 + 0.96) / 3)
    assert found.close_pairs == pytest.approx(1 / 3)


def test_pairs_need_two() -> None:
    assert within(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 0.9)[1:] == (None, None, None)


def test_blocks_against_all_pairs_in_float64() -> None:
    """2300 rows are three blocks, the last one short; row 2200 is a copy of row 5."""
    rows = random_directions(torch.empty(2300, 8), 0)
    rows[2200] = rows[5]
    product = rows.double() @ rows.double().T
    upper = torch.ones_like(product, dtype=torch.bool).triu(1)
    found = within(rows, 0.9)
    assert found.mean_abs == pytest.approx(product[upper].abs().mean().item(), rel=1e-6)
    assert found.close_pairs == int((product[upper] > 0.9).sum()) / int(upper.sum())
    product.fill_diagonal_(-2)
    assert found.nearest.cosines.tolist() == pytest.approx(product.max(1).values.tolist(), abs=1e-6)
    assert (found.nearest.which[5], found.nearest.which[2200]) == (2200, 5)


def test_what_lies_at_the_threshold_is_decided_in_float64() -> None:
    """cos = .9 + 1e-9 rounds to .9 in float32, which is above .9 of float64 or below it by rounding alone."""
    for nudge, share in ((1e-6, 1.0), (1e-8, 1.0), (-1e-8, 0.0)):
        rows = torch.tensor([[1.0, 0.0], [0.9, (1 - 0.81) ** 0.5]])
        exact = float(torch.nn.functional.cosine_similarity(rows[:1].double(), rows[1:].double()))
        assert within(rows, exact - nudge).close_pairs == share


def test_random_rows_are_not_at_zero() -> None:
    """E max cos is about sqrt(2 ln F / D): .25 of 4096 rows in 256 dimensions."""
    found = within(random_directions(torch.empty(4096, 256), 0), 0.9)
    assert found.nearest.cosines.mean().item() == pytest.approx(0.25, abs=0.03)
    assert found.mean_abs == pytest.approx((2 / (torch.pi * 256)) ** 0.5, rel=0.01)


def test_random_rows_are_not_those_with_which_a_coder_began() -> None:
    """Coders draw their rows from a generator with the run's seed."""
    began = unit_rows(torch.randn(64, 16, generator=torch.Generator().manual_seed(3)))
    assert float((began * random_directions(began, 3)).sum(1).abs().mean()) < 0.4
    assert torch.equal(random_directions(began, 3), random_directions(began, 3))
