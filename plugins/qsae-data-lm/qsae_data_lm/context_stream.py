"""Contexts and the document of each of their tokens, from any place in a text on.

C contexts, T positions of a context.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from qsae_core.contracts import TokenBatch
from qsae_data_lm.corpus import Document
from qsae_data_lm.packing import Packer
from qsae_data_lm.tokens import TextTokenizer


class Place(NamedTuple):
    """Where a packer stands (``Packer.position``, ``Packer.remaining``)."""

    position: int = 0
    remaining: int | None = None


def labelled_contexts(
    documents: Iterable[tuple[int, Document]], tokens: TextTokenizer, n_contexts: int, place: Place
) -> Iterator[tuple[TokenBatch, Place]]:
    """All full contexts, ``n_contexts`` at a time, with their documents numbered; and where the next begin.

    Args:
        documents: with the position behind each, from ``place.position`` on. A document's number is the
            position before it.
    """
    stream, again = itertools.tee(tokens.stream(documents))
    packer = Packer(stream, tokens.frame, *place)
    labels = Packer(
        ((behind, np.full(len(found), behind - 1, dtype=np.int32)) for behind, found in again),
        tokens.frame.labelled(-1),
        *place,
    )
    while len(contexts := packer.take(n_contexts)):
        numbers = torch.from_numpy(labels.take(len(contexts)).astype(np.int64))
        batch = replace(tokens.batch(contexts), documents=numbers)
        yield batch, Place(packer.position, packer.remaining)
