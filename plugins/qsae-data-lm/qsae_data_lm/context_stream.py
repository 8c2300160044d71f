"""Contexts, from any place in a text on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from qsae_core.contracts import TokenBatch
from qsae_data_lm.documents import Numbered
from qsae_data_lm.packing import Packer, Position
from qsae_data_lm.tokens import TextTokenizer


class Place(NamedTuple):
    """Where a packer stands (``Packer.position``, ``Packer.remaining``)."""

    position: Position = None
    remaining: int | None = None


def contexts_of(
    documents: Iterable[Numbered], tokens: TextTokenizer, n_contexts: int, place: Place
) -> Iterator[tuple[TokenBatch, Place]]:
    """All full contexts, ``n_contexts`` at a time, and where the next begin.

    Args:
        documents: from ``place.position`` on.
    """
    packer = Packer(tokens.stream(documents), tokens.frame, *place)
    while len(contexts := packer.take(n_contexts)):
        yield tokens.batch(contexts), Place(packer.position, packer.remaining)
