"""How often each of many keys came, in memory that grows with those that came. Shapes: N keys, P kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PENDING = 1 << 22
"""Keys that are kept as they came before they are counted."""


class KeyCounts:
    """Exact counts of int64 keys (a pair of latents, a latent on a token), on the CPU.

    Args:
        wanted: ``int64 [N] -> bool [N]``: keys that are counted; others are dropped. It may come to want
            fewer of them (``forget``), and never more. None: all.
    """

    def __init__(self, wanted: Callable[[Tensor], Tensor] | None = None) -> None:
        self.wanted = wanted
        self._keys = self._counts = torch.zeros(0, dtype=torch.int64)
        self._pending: list[Tensor] = []

    @property
    def keys(self) -> Tensor:
        """int64 ``[P]``, ascending."""
        self.settle()
        return self._keys

    @property
    def counts(self) -> Tensor:
        """int64 ``[P]``: of ``keys``."""
        self.settle()
        return self._counts

    def __len__(self) -> int:
        """Different keys, of those that are counted by now."""
        return len(self._keys)

    def add(self, keys_N: Tensor) -> None:
        """Count keys, each once."""
        self._pending.append(keys_N)
        if sum(map(len, self._pending)) >= PENDING:
            self.settle()

    def merge(self, other: KeyCounts) -> None:
        """Add the counts of another one."""
        self._total(other.keys, other.counts)

    def forget(self) -> None:
        """Drop what is not wanted any more."""
        if self.wanted is not None:
            kept = self.wanted(self._keys)
            self._keys, self._counts = self._keys[kept], self._counts[kept]

    def settle(self) -> None:
        """Count what came."""
        if self._pending:
            keys, counts = torch.cat(self._pending).unique(return_counts=True)
            self._pending = []
            self._total(keys, counts)

    def _total(self, keys: Tensor, counts: Tensor) -> None:
        """Add counts of ascending keys: where a key is there to its count, else between those that are."""
        place = torch.searchsorted(self._keys, keys)
        known = torch.zeros_like(keys, dtype=torch.bool)
        inside = place < len(self._keys)
        known[inside] = self._keys[place[inside]] == keys[inside]
        total = self._counts.index_add(0, place[known], counts[known])
        at = place[~known] + torch.arange(len(keys) - int(known.sum()))
        old = torch.ones(len(total) + len(at), dtype=torch.bool)
        old[at] = False
        self._keys = _joined(self._keys, keys[~known], old)
        self._counts = _joined(total, counts[~known], old)
        self.forget()


def _joined(first: Tensor, second: Tensor, which: Tensor) -> Tensor:
    """The first's entries, in order, where ``which`` is true, and the second's elsewhere."""
    both = torch.empty(len(which), dtype=first.dtype)
    both[which], both[~which] = first, second
    return both
