"""What one pass has seen, for the next one over the same data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from qsae_core.contracts.metric import Observation

KEPT_BYTES = 2**28
"""Of observations that are kept for another pass; where they take more, the data is read again."""


class Replay:
    """The observations of the first tokens, so that another pass neither reads nor encodes them again.

    Args:
        n_tokens: of how many; a pass that wants more reads all again.
        ends: numbers of tokens at which a batch ends.
    """

    def __init__(self, n_tokens: int = 0, ends: Sequence[int] = ()) -> None:
        self.observations: list[Observation] = []
        self._n_tokens, self._ends = n_tokens, frozenset(ends)
        self._seen = 0
        self._bytes_of: dict[int, int] = {}
        """Address -> size of what tensors lie in, of which they may be views."""

    def add(self, observation: Observation) -> None:
        """Keep one more, if it is among the first tokens."""
        if self._seen >= self._n_tokens:
            return
        self._seen += len(observation.target)
        storages = (tensor.untyped_storage() for tensor in _tensors(observation))
        self._bytes_of |= {storage.data_ptr(): storage.nbytes() for storage in storages}
        self.observations.append(observation)
        if sum(self._bytes_of.values()) > KEPT_BYTES:
            self.observations, self._n_tokens = [], 0
            self._bytes_of.clear()

    def holds(self, limits: Iterable[int]) -> bool:
        """Whether a pass that wants so many tokens, and as many, finds all of them here."""
        return all(limit <= self._n_tokens and limit in self._ends for limit in limits)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif dataclasses.is_dataclass(value):
        yield from _tensors(vars(value))
