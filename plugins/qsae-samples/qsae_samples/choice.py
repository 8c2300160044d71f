"""Which firings become examples: the strongest, and some of each part of the others by rank.

Shapes: N entries, F latents, Q groups of ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from qsae_samples.kept import Entries, best_of_each, joined, ordered
from qsae_samples.magnitudes import BINS, bin_of, lower_edge

if TYPE_CHECKING:
    from qsae_samples.firings import Firings

AT_ONCE = 8192
"""Latents whose histograms are widened at one time."""
TOP = 0
"""The group of the strongest; the parts by rank are 1 (the strongest of them) to Q."""


class Chosen(NamedTuple):
    """Examples, int64 ``[N]`` but for the value, ordered by latent, group and strength."""

    latent: Tensor
    group: Tensor
    place: Tensor
    value: Tensor


def choose(firings: Firings) -> Chosen:
    """The examples of all latents.

    A part by rank has examples that are not among the strongest, those of least hash, one of a document.
    """
    from qsae_samples.firings import SPREAD

    top, spread = firings.top.entries(), firings.spread.entries()
    latent = spread.group // (BINS // SPREAD)
    group = group_of(firings.histogram, latent, spread.value.abs(), firings.config.groups)
    n_groups = firings.config.groups
    spread = spread._replace(group=latent * n_groups + group - 1)
    spread = spread.rows(~_among(spread, latent, top))
    spread = best_of_each(spread, firings.config.per_group) if firings.config.per_group else joined([])
    latent = torch.cat([top.group, spread.group // n_groups])
    group = torch.cat([torch.full_like(top.group, TOP), spread.group % n_groups + 1])
    place, value = torch.cat([top.place, spread.place]), torch.cat([top.value, spread.value])
    order = ordered(place, -value.abs(), group, latent)
    return Chosen(latent[order], group[order], place[order], value[order])


def _among(entries: Entries, latent: Tensor, top: Entries) -> Tensor:
    """bool ``[N]``: whether an entry is one of the strongest."""
    owner = torch.cat([top.group, latent])
    place = torch.cat([top.place, entries.place])
    order = ordered(place, owner)  # stable: the strongest come first
    same = torch.zeros(len(order), dtype=torch.bool)
    same[1:] = (owner[order][1:] == owner[order][:-1]) & (place[order][1:] == place[order][:-1])
    found = torch.zeros_like(same)
    found[order] = same
    return found[len(top.group) :]


def group_of(histogram: Tensor, latent: Tensor, magnitude: Tensor, n_groups: int) -> Tensor:
    """int64 ``[N]``, 1 to Q: the part of a latent's firings, by rank, that a magnitude falls into.

    How many firings are stronger is known to within a bin, and within it taken as evenly spread over the
    logarithm of the magnitude.

    Args:
        histogram: int ``[F, BINS]``.
    """
    bin_ = bin_of(magnitude)
    stronger, within, firings = torch.zeros(3, len(latent), dtype=torch.int64)
    for first in range(0, len(histogram), AT_ONCE):
        mine = ((latent >= first) & (latent < first + AT_ONCE)).nonzero()[:, 0]
        counts, row = histogram[first : first + AT_ONCE].to(torch.int64), latent[mine] - first
        n = counts.sum(1)
        firings[mine], within[mine] = n[row], counts[row, bin_[mine]]
        stronger[mine] = n[row] - counts.cumsum(1)[row, bin_[mine]]
    width = torch.log2(lower_edge(bin_ + 1) / lower_edge(bin_))
    above = 1 - (torch.log2(magnitude.double() / lower_edge(bin_)) / width).clamp(0, 1)
    rank = stronger + (above * within).minimum(within - 0.5)
    share = rank / firings.clamp_min(1)
    return (share * n_groups).floor().clamp(0, n_groups - 1).to(torch.int64) + 1


def group_floors(histogram: Tensor, n_groups: int) -> Tensor:
    """float32 ``[F, Q]``: the least magnitude of each part, likewise; NaN for a latent that never fires."""
    if len(histogram) > AT_ONCE:
        return torch.cat([group_floors(rows, n_groups) for rows in histogram.split(AT_ONCE)])
    counts = histogram.to(torch.float64)
    n = counts.sum(1, keepdim=True)
    at_least = counts.flip(1).cumsum(1)  # of bins from the strongest down
    wanted = n * torch.arange(1, n_groups + 1, dtype=torch.float64) / n_groups
    place = torch.searchsorted(at_least, wanted.contiguous()).clamp_max(BINS - 1)
    within = counts.flip(1).gather(1, place)
    missing = (at_least.gather(1, place) - wanted) / within.clamp_min(1)
    bin_ = BINS - 1 - place
    floors = lower_edge(bin_) * (lower_edge(bin_ + 1) / lower_edge(bin_)) ** missing.clamp(0, 1)
    return floors.where(n > 0, floors.new_tensor(torch.nan)).to(torch.float32)
