"""Atoms and firing beside a known truth, by hand."""

from __future__ import annotations

import pytest
import torch
from qsae_evaluation_ground_truth.firing import Firing
from qsae_evaluation_ground_truth.recovery import recovery

from qsae_core.contracts import SparseCodes
from qsae_core.measuring import Matching, random_directions


def test_a_permuted_signed_copy_is_all_of_it() -> None:
    """|cos| is 1 for each pair, whatever its sign; every latent has a feature of its own."""
    truth = random_directions(torch.empty(30, 12), 0)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    found = recovery(truth, truth[order] * torch.tensor([1.0, -1.0]).repeat(15)[:, None], 64, [0.9])
    assert torch.equal(order[found.matching.columns], found.matching.rows)
    assert found.matching.cosines.sum().item() == pytest.approx(0, abs=1e-9)
    assert found.values == {
        "mcc": pytest.approx(1),
        "mmcs": pytest.approx(1),
        "uniqueness": 1.0,
        "found_above_0.9": 1.0,
    }


def test_two_latents_for_one_feature() -> None:
    """Features e0, e1, e2 and one that does not count; latents e0, (.96, .28, 0), zero. Matched: e0 with e0,
    e1 with .28; of features .96 + ... : nearest are 1, .28 and 0. Both latents' best feature is e0."""
    truth = torch.cat([torch.eye(3), torch.zeros(1, 3)])
    latents = torch.tensor([[1.0, 0.0, 0.0], [0.96, 0.28, 0.0], [0.0, 0.0, 0.0]])
    found = recovery(truth, latents, 64, [0.9])
    assert found.values["mcc"] == pytest.approx((1 + 0.28) / 2)
    assert found.values["mmcs"] == pytest.approx((1 + 0.28 + 0) / 3)
    assert found.values["uniqueness"] == 0.5
    assert found.values["found_above_0.9"] == pytest.approx(1 / 3)


def pairs(*of: tuple[int, int]) -> Matching:
    rows, columns = (torch.tensor(side) for side in zip(*of, strict=True))
    return Matching(rows, columns, torch.ones(len(of), dtype=torch.float64), "exact")


TRUTH = SparseCodes.from_dense(torch.tensor([[2.0, 0, 0], [2.0, 1.0, 0], [0, 0, 3.0], [4.0, 0, 0]]))
CODES = SparseCodes.from_dense(torch.tensor([[0.0, 1.0], [0.0, 1.5], [7.0, 9.0], [0.0, 0.0]]))


def test_firing_by_hand() -> None:
    """Feature 0 is active on tokens 0, 1, 3, its latent 1 fires on 0, 1, 2: both on 2. Feature 1 is active on
    token 1, its latent 0 fires on token 2. Feature 2 has none."""
    firing = Firing(pairs((0, 1), (1, 0)), 3, 2)
    firing.add(TRUTH, CODES)
    columns = firing.columns()
    assert columns["precision"].tolist() == pytest.approx([2 / 3, 0])
    assert columns["recall"].tolist() == pytest.approx([2 / 3, 0])
    assert columns["f1"].tolist() == pytest.approx([2 / 3, 0])
    # 3 of 4 tokens each: 4 * 9 / 16 together by chance
    assert columns["f1_by_chance"].tolist() == pytest.approx([2 * (9 / 4) / 6, 2 * (1 / 4) / 2])
    assert columns["precision_by_chance"].tolist() == pytest.approx([3 / 4, 1 / 4])
    assert columns["recall_by_chance"].tolist() == pytest.approx([3 / 4, 1 / 4])
    assert firing.latent_sum.tolist() == [0.0, 2.5]
    assert firing.feature_sum.tolist() == [0.0, 4.0]
    assert (firing.of_feature.tolist(), firing.of_latent.tolist()) == ([3, 1, 1], [1, 3])


def test_what_never_happens_is_not_defined() -> None:
    """The latent of feature 2 never fires; feature 1 is never active in the last two tokens."""
    firing = Firing(pairs((2, 0)), 3, 2)
    firing.add(TRUTH, SparseCodes.from_dense(torch.zeros(4, 2)))
    columns = firing.columns()
    assert columns["precision"].isnan().all()
    assert (columns["recall"].tolist(), columns["f1"].tolist()) == ([0.0], [0.0])
    never = Firing(pairs((1, 0)), 3, 2)
    never.add(
        SparseCodes.from_dense(torch.tensor([[0, 0, 3.0], [4.0, 0, 0]])),
        SparseCodes.from_dense(torch.tensor([[7.0, 9.0], [0.0, 0.0]])),
    )
    assert never.columns()["recall"].isnan().all()
    assert never.columns()["f1"].isnan().all()
    assert never.columns()["precision"].tolist() == [0.0]


def test_entries_of_value_zero_are_not_active() -> None:
    offsets = torch.tensor([0, 2])
    padded = SparseCodes(torch.tensor([0, 1], dtype=torch.int32), torch.tensor([1.0, 0.0]), offsets, 2, k=2)
    firing = Firing(pairs((0, 0), (1, 1)), 2, 2)
    firing.add(padded, padded)
    assert firing.of_both.tolist() == [1.0, 0.0]


def test_the_order_of_entries_is_free() -> None:
    """One token: latents 1, 0 with 5, 7, features 0, 1 with 2, 3, each with the latent of its number."""
    offsets = torch.tensor([0, 2])
    codes = SparseCodes(torch.tensor([1, 0], dtype=torch.int32), torch.tensor([5.0, 7.0]), offsets, 2)
    truth = SparseCodes(torch.tensor([0, 1], dtype=torch.int32), torch.tensor([2.0, 3.0]), offsets, 2)
    firing = Firing(pairs((0, 0), (1, 1)), 2, 2)
    firing.add(truth, codes)
    assert (firing.latent_sum.tolist(), firing.feature_sum.tolist()) == ([7.0, 5.0], [2.0, 3.0])
