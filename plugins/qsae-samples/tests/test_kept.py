"""What is kept of entries: by hand, and in any order."""

from __future__ import annotations

import torch
from qsae_samples.kept import Entries, Kept, best_of_each, hashed


def entries(*rows: tuple[int, int, int, int]) -> Entries:
    group, key, document, place = (torch.tensor(column) for column in zip(*rows, strict=True))
    return Entries(group, key, document, place, place.float())


def listed(found: Entries) -> list[tuple[int, int, int]]:
    return list(zip(found.group.tolist(), found.key.tolist(), found.place.tolist(), strict=True))


def test_the_two_best_of_each_group_one_of_a_document():
    # group 0: keys 1 and 2 are of one document, so 1 and 5 stay; group 3 has one entry
    found = best_of_each(
        entries((0, 2, 7, 10), (3, 9, 7, 11), (0, 5, 8, 12), (0, 1, 7, 13), (0, 6, 9, 14)), 2
    )
    assert listed(found) == [(0, 1, 13), (0, 5, 12), (3, 9, 11)]


def test_of_equal_keys_the_first_place_stays():
    found = best_of_each(entries((0, 4, 1, 9), (0, 4, 2, 3)), 1)
    assert listed(found) == [(0, 4, 3)]


def test_nothing_hangs_on_order_or_batches(monkeypatch):
    monkeypatch.setattr("qsae_samples.kept.BUFFER", 40)
    generator = torch.Generator().manual_seed(0)
    n = 500
    draw = [torch.randint(0, high, (n,), generator=generator) for high in (6, 50, 20)]
    every = Entries(*draw, torch.arange(n), torch.zeros(n))
    expected = listed(best_of_each(every, 4))
    for size in (1, 7, 64):
        kept = [Kept(6, 4), Kept(6, 4)]
        for number, rows in enumerate(torch.randperm(n, generator=generator).split(size)):
            kept[number % 2].add(every.rows(rows))
        kept[0].merge(kept[1])
        assert listed(kept[0].entries()) == expected


def test_hashes_are_those_of_the_published_generator():
    # SplitMix64 of seed 0 begins with e220a8397b1dcdaf; 62 bits of it are kept
    assert int(hashed(torch.tensor([0]), 0)) == 0xE220A8397B1DCDAF & ((1 << 62) - 1)
    places = torch.arange(1 << 16)
    assert len(hashed(places, 0).unique()) == len(places)
    assert abs(float(hashed(places, 3).double().mean()) / 2**61 - 1) < 0.01
