"""The text of a side, a shard's contexts at a time. Shapes: C contexts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qsae_core.contracts import DataSource, TokenBatch
from qsae_store.plan import Side


class Text:
    """The contexts of a side, a shard's at a time.

    Attributes:
        behind: the place behind those that were taken last.
    """

    def __init__(self, source: DataSource, n_contexts: int, side: Side) -> None:
        self._source, self._n_contexts, self._held_out = source, n_contexts, side == "held-out"
        self.go_to(None)

    def go_to(self, place: Mapping[str, Any] | None) -> None:
        """Go on at a place that ``behind`` gave; None: at the beginning."""
        self.behind: Mapping[str, Any] = place or {}
        self._start = place
        self._stream: Iterator[tuple[TokenBatch, Mapping[str, Any]]] | None = None
        self._ahead: tuple[TokenBatch, Mapping[str, Any]] | None = None

    def take(self) -> TokenBatch | None:
        """The next shard's contexts; None where there are none any more."""
        if self._stream is None:
            self._stream = self._source.contexts(self._n_contexts, self._start, held_out=self._held_out)
            self._ahead = next(self._stream, None)
        if self._ahead is None:
            return None
        contexts, self.behind = self._ahead
        self._ahead = next(self._stream, None)
        return contexts

    @property
    def has_ended(self) -> bool:
        """Whether there is no text behind those that were taken last."""
        return self._ahead is None


def as_many_as_needed(contexts: TokenBatch, limit: int | None, before: int) -> TokenBatch:
    """The fewest of the contexts with which a side has as many vectors as asked for; or all of them."""
    if limit is None:
        return contexts
    behind_C = before + contexts.counted.sum(1).cumsum(0)
    needed = int((behind_C < limit).sum()) + 1
    return contexts.rows(slice(needed))
