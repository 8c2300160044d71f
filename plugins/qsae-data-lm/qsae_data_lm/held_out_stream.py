"""Held-out vectors and contexts, in the order of the text.

C contexts, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from qsae_core.contracts import Batch, TokenBatch
from qsae_data_lm.context_stream import Place, labelled_contexts
from qsae_data_lm.documents import Documents, too_little
from qsae_data_lm.harvest import Harvester, join, select
from qsae_data_lm.packing import Tokens


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
        for contexts, _ in self._labelled(n_tokens):
            for part in self.harvester.read(contexts, self._where):
                kept.append(part)
                have += len(part)
                whole = join(kept)
                while have >= min(batch_size, left) > 0:
                    count = min(batch_size, left)
                    yield select(whole, slice(count))
                    whole = select(whole, slice(count, None))
                    left, have = left - count, have - count
                kept = [whole]
        if have and left:
            yield select(join(kept), slice(min(have, left)))

    def contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        """Contexts, whose documents are numbered in the order of the held-out text, and the vectors at their
        counted positions."""
        at_once = max(1, batch_size // self.context)
        tokens = self.harvester.tokens
        left = n_tokens
        for contexts, documents in self._labelled(n_tokens):
            counts = tokens.batch(contexts).counted.sum(1).numpy()
            needed = int((counts.cumsum() - counts < left).sum())
            left -= int(counts.sum())
            for start in range(0, needed, at_once):
                rows = slice(start, min(start + at_once, needed))
                batch = replace(tokens.batch(contexts[rows]), documents=torch.from_numpy(documents[rows]))
                yield batch, join(list(self.harvester.read(contexts[rows], self._where)))

    @property
    def _where(self) -> str:
        return f"{self.place}, held-out part"

    def _labelled(self, n_tokens: int) -> Iterator[tuple[Tokens, NDArray[np.int64]]]:
        """Contexts, one forward pass at a time, until `n_tokens` positions of them are counted; and int64
        [C, T]: the number of each token's document, -1 of special ones."""
        if n_tokens < 1:
            return
        tokens, counted = self.harvester.tokens, 0
        documents = enumerate(self.documents.held_out(), start=1)
        for found in labelled_contexts(documents, tokens, self.harvester.forward_contexts, Place()):
            counted += int(tokens.batch(found.contexts).counted.sum())
            yield found.contexts, found.documents
            if counted >= n_tokens:
                return
        if not counted:
            raise too_little(self.documents, "held-out", self.context, self.place)
