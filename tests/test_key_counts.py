"""Counts of keys, and pairs of latents on one token, beside the plain way."""

from __future__ import annotations

import collections
import itertools

import pytest
import torch

from qsae_core.measuring import KeyCounts, entries_by_token, pairs_of_tokens


@pytest.mark.parametrize("pending", [1, 7, 1 << 22])
def test_counts_are_those_of_a_counter(pending: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qsae_core.measuring.key_counts.PENDING", pending)
    keys = torch.randint(0, 50, (300,), generator=torch.Generator().manual_seed(0))
    one, other = KeyCounts(), KeyCounts()
    for number, part in enumerate(keys.split(11)):
        (one, other)[number % 2].add(part)
    one.merge(other)
    expected = sorted(collections.Counter(keys.tolist()).items())
    assert list(zip(one.keys.tolist(), one.counts.tolist(), strict=True)) == expected
    assert len(one) == len(expected)


def test_what_is_not_wanted_any_more_is_dropped_and_stays_out() -> None:
    bound = [100]
    counts = KeyCounts(lambda keys: keys < bound[0])
    counts.add(torch.tensor([1, 60, 60, 120]))
    assert counts.keys.tolist() == [1, 60]
    bound[0] = 50
    counts.forget()
    counts.add(torch.tensor([60, 1]))
    assert (counts.keys.tolist(), counts.counts.tolist()) == ([1], [2])


@pytest.mark.parametrize("at_once", [1, 1 << 20])
def test_pairs_of_tokens_are_all_pairs(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qsae_core.measuring.token_pairs.AT_ONCE", at_once)
    fires = torch.rand(12, 9, generator=torch.Generator().manual_seed(1)) < 0.4
    rows, latents = fires.nonzero(as_tuple=True)
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2))
    rows, latents = entries_by_token(rows[shuffled], latents[shuffled])
    expected = [pair for row in fires for pair in itertools.combinations(row.nonzero().flatten().tolist(), 2)]
    found = [
        pair for i, j in pairs_of_tokens(rows, latents) for pair in zip(i.tolist(), j.tolist(), strict=True)
    ]
    assert sorted(found) == sorted(expected)
    wanted = latents < 3
    some = [
        pair
        for i, j in pairs_of_tokens(rows, latents, wanted)
        for pair in zip(i.tolist(), j.tolist(), strict=True)
    ]
    assert sorted(some) == sorted(pair for pair in expected if min(pair) < 3)
