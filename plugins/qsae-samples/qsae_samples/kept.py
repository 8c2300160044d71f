"""The best entries of each group, one of a document, whatever the order in which entries come.

Shapes: N entries, G groups.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

POSITION_BITS = 20
"""A place is ``context << POSITION_BITS | position``."""
BUFFER = 1 << 20
"""Entries that are gathered before they are sorted into what is kept."""
WORST = torch.iinfo(torch.int64).max


class Entries(NamedTuple):
    """Candidates, one a row; int64 ``[N]`` but for the value."""

    group: Tensor
    key: Tensor
    """The smaller the better."""
    document: Tensor
    place: Tensor
    value: Tensor
    """float32 ``[N]``."""

    def rows(self, which: Tensor) -> Entries:
        """Some of them."""
        return Entries(*(tensor[which] for tensor in self))


def joined(parts: list[Entries]) -> Entries:
    """The entries of several, one behind the other."""
    if not parts:
        none = torch.zeros(0, dtype=torch.int64)
        return Entries(none, none, none, none, none.to(torch.float32))
    return Entries(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def ordered(*keys: Tensor) -> Tensor:
    """int64 ``[N]``: the order by the last of the keys, where it is equal by the one before, and so on."""
    order = keys[0].argsort(stable=True)
    for key in keys[1:]:
        order = order[key[order].argsort(stable=True)]
    return order


def first_of_run(*keys: Tensor) -> Tensor:
    """bool ``[N]``: of rows in order, where one of the keys is another than in the row before."""
    differs = torch.ones(len(keys[0]), dtype=torch.bool)
    differs[1:] = torch.stack([key[1:] != key[:-1] for key in keys]).any(0)
    return differs


def rank_in_run(key: Tensor) -> Tensor:
    """int64 ``[N]``: how many rows before have the same key; rows are ordered by it."""
    here = torch.arange(len(key))
    return here - here.where(first_of_run(key), here.new_zeros(())).cummax(0).values if len(key) else here


def best_of_each(entries: Entries, n: int) -> Entries:
    """Of each group the n of least key, at most one of a document; ordered by group and key."""
    entries = entries.rows(ordered(entries.place, entries.key))
    by_document = ordered(entries.document, entries.group)
    first = first_of_run(entries.group[by_document], entries.document[by_document])
    entries = entries.rows(by_document[first].sort().values)  # in the order of keys again
    entries = entries.rows(ordered(entries.group))
    return entries.rows(rank_in_run(entries.group) < n)


class Kept:
    """The n best entries of each of G groups, among all that were added.

    What is kept of two parts, merged, is what is kept of both; so nothing hangs on batches or their order.
    """

    def __init__(self, n_groups: int, n: int) -> None:
        self.n = n
        self._entries, self._buffer, self._n_buffered = joined([]), list[Entries](), 0
        self._worst = torch.full((n_groups,), WORST)  # of a full group: the key of its last entry

    def add(self, entries: Entries) -> None:
        """Take more entries into account."""
        if self.n == 0:
            return
        entries = entries.rows(entries.key <= self._worst[entries.group])
        self._buffer.append(entries)
        self._n_buffered += len(entries.key)
        if self._n_buffered > BUFFER:
            self.entries()

    def merge(self, other: Kept) -> None:
        """Take into account what another one keeps."""
        self.add(other.entries())

    def entries(self) -> Entries:
        """What is kept, ordered by group and key."""
        if self._buffer:
            found = best_of_each(joined([self._entries, *self._buffer]), self.n)
            last = rank_in_run(found.group) == self.n - 1
            self._worst[found.group[last]] = found.key[last]
            self._entries, self._buffer, self._n_buffered = found, [], 0
        return self._entries


def hashed(place: Tensor, seed: int) -> Tensor:
    """int64 in ``[0, 2**62)`` of each place, as good as random and the same wherever it is computed
    (SplitMix64, Steele, Lea and Flood 2014)."""
    mixed = place + _wrapped(seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ _shifted(mixed, shift)) * _wrapped(factor)
    return (mixed ^ _shifted(mixed, 31)) & ((1 << 62) - 1)


def _wrapped(number: int) -> int:
    """The int64 with the same 64 bits."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >= 1 << 63 else number


def _shifted(number: Tensor, by: int) -> Tensor:
    """A logical shift to the right."""
    return (number >> by) & ((1 << (64 - by)) - 1)
