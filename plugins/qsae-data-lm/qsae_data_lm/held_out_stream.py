"""Held-out vectors and contexts, in the order of the text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from qsae_core.contracts import Batch, TokenBatch
from qsae_data_lm.context_stream import Place, contexts_of
from qsae_data_lm.documents import Documents, Numbered, nothing_counts, too_little
from qsae_data_lm.harvest import Harvester
from qsae_data_lm.packing import Position


@dataclass(frozen=True)
class HeldOutStream:
    """What evaluation reads, always the same.

    Attributes:
        documents: whose held-out part it is.
        harvester: reads their vectors.
        context: positions of a context.
        place: what the text is called.
    """

    documents: Documents
    harvester: Harvester
    context: int
    place: str

    def vectors(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        """At most `n_tokens` vectors, in batches of one size but for the last."""
        kept: list[Batch] = []
        left, have = n_tokens, 0
        for contexts in self._contexts(n_tokens):
            for part in self.harvester.read(contexts, self._where):
                kept.append(part)
                have += len(part)
                whole = Batch.joined(kept)
                while have >= min(batch_size, left) > 0:
                    count = min(batch_size, left)
                    yield whole.rows(slice(count))
                    whole = whole.rows(slice(count, None))
                    left, have = left - count, have - count
                kept = [whole]
        if have and left:
            yield Batch.joined(kept).rows(slice(min(have, left)))

    def contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        """Contexts, whose documents are numbered in the order of the held-out text, and the vectors at their
        counted positions."""
        at_once = max(1, batch_size // self.context)
        left = n_tokens
        for contexts in self._contexts(n_tokens):
            counts = contexts.counted.sum(1)
            needed = int((counts.cumsum(0) - counts < left).sum())
            left -= int(counts.sum())
            for start in range(0, needed, at_once):
                some = contexts.rows(slice(start, min(start + at_once, needed)))
                yield some, Batch.joined(list(self.harvester.read(some, self._where)))

    @property
    def _where(self) -> str:
        return f"{self.place}, held-out part"

    def _contexts(self, n_tokens: int) -> Iterator[TokenBatch]:
        """Contexts, one forward pass at a time, until `n_tokens` positions of them are counted."""
        if n_tokens < 1:
            return
        tokens, read, counted = self.harvester.tokens, 0, 0
        documents = held_out_documents(self.documents)
        for contexts, _ in contexts_of(documents, tokens, self.harvester.forward_contexts, Place()):
            read, counted = read + len(contexts.ids), counted + int(contexts.counted.sum())
            yield contexts
            if counted >= n_tokens:
                return
        if not read:
            raise too_little(self.documents, "held-out", self.context, self.place)
        if not counted:
            raise nothing_counts("held-out", self.place)


def held_out_documents(documents: Documents, start: Position = None) -> Iterator[Numbered]:
    """The held-out documents behind a position, numbered in their order."""
    numbered = (Numbered(n + 1, n, document) for n, document in enumerate(documents.held_out()))
    return itertools.islice(numbered, start or 0, None)
