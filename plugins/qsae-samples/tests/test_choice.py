"""Bins of magnitude, and parts by rank, by hand."""

from __future__ import annotations

import torch
from qsae_samples.choice import group_floors, group_of
from qsae_samples.magnitudes import BINS, bin_of, lower_edge, strength_key


def histogram(magnitudes: torch.Tensor) -> torch.Tensor:
    return torch.bincount(bin_of(magnitudes), minlength=BINS)[None]


def test_bins_are_eighths_of_octaves():
    # 1 is 16 octaves above the lowest bin; a power of 2 begins a bin, what is just below is in the one before
    below = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    assert bin_of(torch.stack([torch.tensor(1.0), torch.tensor(2.0), below])).tolist() == [128, 136, 127]
    edges = lower_edge(torch.arange(1, BINS)).float()
    assert torch.equal(bin_of(edges), torch.arange(1, BINS))
    assert bin_of(torch.tensor([1e-30, 1e30])).tolist() == [0, BINS - 1]


def test_parts_by_rank_have_equal_shares_however_activations_are_distributed():
    # 10 firings: 8 weak ones and two strong ones; by rank each of 5 parts has two
    magnitudes = torch.tensor([1000.0, 500.0, *(2.0 ** (-i / 2) for i in range(8))])
    counts = histogram(magnitudes)
    found = group_of(counts, torch.zeros(10, dtype=torch.int64), magnitudes, 5)
    assert found.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    floors = group_floors(counts, 5)[0]
    assert torch.equal(bin_of(floors * 1.0001), bin_of(magnitudes[1::2]))
    assert group_floors(torch.zeros_like(counts), 5).isnan().all()


def test_within_a_bin_ranks_are_even():
    # 100 firings in one octave eighth, evenly over the logarithm: 20 in each part
    magnitudes = torch.exp2(torch.arange(100) / 800 + 0.0005)
    found = group_of(histogram(magnitudes), torch.zeros(100, dtype=torch.int64), magnitudes, 5)
    assert torch.bincount(found).tolist() == [0, 20, 20, 20, 20, 20]
    assert (found.diff() <= 0).all()


def test_the_stronger_has_the_smaller_key_and_a_hash_decides_between_equals():
    keys = strength_key(torch.tensor([3.0, 2.0, 2.0]), torch.tensor([1 << 60, 5 << 40, 1 << 40]))
    assert keys.argsort().tolist() == [0, 2, 1]
