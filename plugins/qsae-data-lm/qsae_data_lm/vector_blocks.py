"""The training stream: shuffled blocks of hidden states, resumable at any vector.

The training documents of an epoch come in an order drawn from (seed, epoch) and are packed into contexts.
Block i is what the model computes over the next contexts, its vectors permuted by a generator seeded from
(seed, epoch, i). So the state is a handful of numbers; a resumed run computes its block again and goes on
with the very same vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from qsae_core.contracts import Batch, NormLimit, TokenBatch
from qsae_data_lm import LmConfig
from qsae_data_lm.context_stream import Place, contexts_of
from qsae_data_lm.documents import WHOLE, Documents, nothing_counts, shuffled, too_little
from qsae_data_lm.harvest import Harvester
from qsae_data_lm.packing import Position


class VectorBlocks:
    """Vectors of the training documents, without end.

    Args:
        config: sizes of blocks and contexts, and the limit of norms.
        documents: whose training part it is.
        harvester: reads their vectors.
        seed: of every order.
        text: what the text is called.

    Attributes:
        share: (rank, world) of the process whose documents these are.
    """

    def __init__(
        self, config: LmConfig, documents: Documents, harvester: Harvester, seed: int, text: str
    ) -> None:
        self._config, self._documents, self._harvester = config, documents, harvester
        self._seed, self._text = seed, text
        self._block_contexts = max(1, config.buffer_tokens // config.context)
        self.share = WHOLE
        self.go_to()

    def take(self, size: int) -> Batch:
        """The next vectors; where that fails or is interrupted, none is passed over."""
        before = self.place()
        try:
            return self._take(size)
        except BaseException:
            self.go_to(**before)
            raise

    def _take(self, size: int) -> Batch:
        parts: list[Batch] = []
        missing, epoch = size, self._epoch
        while missing:
            if self._rows is None or self._cursor == len(self._order):
                self._next_block()
                if self._epoch > epoch + 1 and not parts:
                    raise nothing_counts("training", self._text)
                continue
            rows = self._order[self._cursor : self._cursor + missing]
            parts.append(self._rows.rows(torch.from_numpy(rows).to(self._rows.x.device)))
            self._cursor += len(rows)
            missing -= len(rows)
        return Batch.joined(parts)

    def place(self) -> dict[str, Any]:
        """Where the stream stands, as JSON values."""
        return {
            "epoch": self._epoch,
            "block": self._block,
            "cursor": self._cursor,
            **self._block_start._asdict(),
            "norms": self._norms.state(),
        }

    def go_to(
        self,
        epoch: int = 0,
        block: int = 0,
        cursor: int = 0,
        position: Position = None,
        remaining: int | None = None,
        norms: Mapping[str, Any] | None = None,
    ) -> None:
        """Stand in a block, at a vector; nothing of the block is read until it is needed."""
        self._norms = NormLimit(self._config.max_norm_multiple, norms)
        self._epoch, self._block, self._cursor = epoch, block, cursor
        self._block_start = self._behind_block = Place(position, remaining)
        self._contexts = self.contexts(epoch, self._block_start, self._block_contexts)
        self._rows: Batch | None = None
        self._order = shuffled(0, 0)

    def divide(self, rank: int, world: int) -> None:
        """Begin anew, with the documents of one process alone."""
        self.share = (rank, world)
        self.go_to()

    def contexts(self, epoch: int, place: Place, n_contexts: int) -> Iterator[tuple[TokenBatch, Place]]:
        """The text of an epoch from a place on; the stream stays where it is."""
        documents = self._documents.training(self._seed, epoch, place.position, self.share)
        return contexts_of(documents, self._harvester.tokens, n_contexts, place)

    def first_block(self) -> TokenBatch | None:
        """The contexts of the first block; None where there is not one."""
        first = next(self.contexts(0, Place(), self._block_contexts), None)
        return None if first is None else first[0]

    def left_out(self) -> str | None:
        """How many vectors with outlying norms."""
        return self._norms.sentence()

    def clear(self) -> None:
        """Let the block go; it is computed again when it is needed."""
        self.go_to(**self.place())

    def _next_block(self) -> None:
        """Read the block that comes next; past the end of the text, the first of a new epoch."""
        if self._rows is not None:
            self._block, self._cursor = self._block + 1, 0
            self._block_start = self._behind_block
            self._norms.next_block()
        self._rows = None  # frees the memory before the next block takes it
        following = next(self._contexts, None)
        if following is None and self._block > 0:
            self.go_to(self._epoch + 1, norms=self._norms.state())
            following = next(self._contexts, None)
        if following is None:
            raise too_little(self._documents, "training", self._config.context, self._text, self.share)
        contexts, self._behind_block = following
        where = f"{self._text}, epoch {self._epoch}, block {self._block}"
        self._rows = Batch.joined(list(self._harvester.read(contexts, where)))
        sides = (self._rows.x,) if self._rows.y is self._rows.x else (self._rows.x, self._rows.y)
        kept = self._norms.kept(*sides).cpu().numpy()
        self._order = kept[shuffled(len(kept), self._seed, self._epoch, self._block)]
