"""Who is matched with whom: by hand, a permuted copy with signs, and above the exact size."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from qsae_core.measuring import cosines, match, nearest, random_directions, unit_rows


def rows(n: int, width: int, seed: int = 0) -> Tensor:
    return random_directions(torch.empty(n, width), seed)


def pairs(matching) -> dict[int, int]:
    return dict(zip(matching.rows.tolist(), matching.columns.tolist(), strict=True))


def test_one_to_one_by_hand() -> None:
    """cos(a0, b) = (.8, .6), cos(a1, b) = (.96, .28): both want b0, and .6 + .96 > .8 + .28."""
    a = torch.tensor([[0.8, 0.6], [0.96, 0.28]])
    found = match(a, torch.eye(2), exact_up_to=8)
    assert pairs(found) == {0: 1, 1: 0}
    assert sorted(found.cosines.tolist()) == pytest.approx([0.6, 0.96])
    assert found.how == "exact"
    assert nearest(a, torch.eye(2))[0].which.tolist() == [0, 0]


@pytest.mark.parametrize("exact_up_to", [64, 8])
def test_a_permuted_copy_with_signs(exact_up_to: int) -> None:
    """With the sign kept the copy is found whole; where half of its rows are turned round, |cos| finds it,
    and the signed matching gives these rows other partners."""
    a = rows(40, 16)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    kept = match(a, a[order], exact_up_to=exact_up_to)
    assert torch.equal(order[kept.columns], kept.rows)
    assert kept.cosines.mean().item() == pytest.approx(1, abs=1e-12)

    turned = a[order] * torch.tensor([1.0, -1.0]).repeat(20)[:, None]
    unsigned = match(a, turned, exact_up_to=exact_up_to, absolute=True)
    assert torch.equal(order[unsigned.columns], unsigned.rows)
    assert unsigned.cosines.abs().mean().item() == pytest.approx(1, abs=1e-12)
    assert unsigned.cosines.sum().item() == pytest.approx(0, abs=1e-12)  # 20 of 1 and 20 of -1
    signed = match(a, turned, exact_up_to=exact_up_to).cosines
    assert 0.5 < signed.mean().item() < 0.9
    assert int((signed > 0.99).sum()) == 20


def test_no_other_pairs_have_a_larger_sum() -> None:
    a, b = rows(6, 3), rows(5, 3, seed=1)
    best = max(
        sum(float(a[i].double() @ b[j].double()) for j, i in enumerate(order))
        for order in itertools.permutations(range(6), 5)
    )
    for found in (match(a, b, exact_up_to=6), match(b, a, exact_up_to=6)):
        assert len(found.rows) == 5
        assert found.cosines.sum().item() == pytest.approx(best, abs=1e-6)


def test_rows_of_zeros_have_no_partner() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    assert pairs(match(a, a, exact_up_to=8)) == {0: 0, 2: 2}
    assert len(match(torch.zeros(2, 2), a, exact_up_to=8).rows) == 0


def test_many_equal_rows_come_to_an_end() -> None:
    """Each round of mutual pairs finds one of them; the rest is matched a few rows at a time."""
    a = torch.tensor([[1.0, 0.0]]).repeat(300, 1)
    found = match(a, a[:200], exact_up_to=16)
    assert found.how == "mutual"
    assert len(set(found.rows.tolist())) == len(set(found.columns.tolist())) == 200


def test_above_the_exact_size() -> None:
    """5000 noisy copies: mutual pairs find them all, and of random rows nearly the sum of the best pairs."""
    a = rows(5000, 32)
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(1))
    copy = unit_rows(a + 0.02 * torch.randn(a.shape, generator=torch.Generator().manual_seed(2)))[order]
    found = match(a, copy, exact_up_to=4096)
    assert found.how == "mutual"
    assert torch.equal(order[found.columns], found.rows)
    others = rows(5000, 32, seed=3)
    mutual, exact = (match(a, others, exact_up_to=n).cosines.mean().item() for n in (1024, 5000))
    assert 0.97 * exact < mutual <= exact + 1e-9


def test_blocks_of_float32_find_what_float64_finds() -> None:
    """2500 rows are three blocks; a cosine may differ where two are as near."""
    a, b = rows(2500, 24), rows(1300, 24, seed=1)
    product = a.double() @ b.double().T
    of_a, of_b = nearest(a, b)
    assert of_a.cosines.tolist() == pytest.approx(product.max(1).values.tolist(), abs=1e-6)
    assert of_b.cosines.tolist() == pytest.approx(product.max(0).values.tolist(), abs=1e-6)
    exact = cosines(a, b, torch.arange(2500), of_a.which)
    assert torch.allclose(exact, product.gather(1, of_a.which[:, None])[:, 0], atol=1e-7, rtol=0)
    unsigned, _ = nearest(a, b, absolute=True)
    assert unsigned.cosines.abs().tolist() == pytest.approx(product.abs().max(1).values.tolist(), abs=1e-6)
