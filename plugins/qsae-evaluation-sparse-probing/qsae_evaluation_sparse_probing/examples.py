"""Which tokens each task is trained, validated and tested on. Shapes: N tokens, D documents, C classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsae_evaluation_sparse_probing.tasks import NEGATIVE, POSITIVE

Indices = NDArray[np.int64]
SHARES = (0.5, 0.2, 0.3)
"""Of the tokens, those of documents to train on, to validate on and to test on."""
TRAIN, VALIDATION, TEST = range(3)


class Examples(NamedTuple):
    """A task's tokens, as indices into all tokens, ascending; half of each part has the property."""

    train: Indices
    validation: Indices
    test: Indices


def parts_of(counts_DC: Indices) -> Indices:
    """``[D]``: ``TRAIN``, ``VALIDATION`` or ``TEST`` for each document.

    So that a class which few documents hold is in every part: documents with the largest shares of the
    classes first, each to the part that lacks most of what it holds.

    Args:
        counts_DC: of each document, its tokens of each class of each task.
    """
    held_DC = counts_DC / np.maximum(counts_DC.sum(0), 1)
    lacks_PC = np.repeat(np.array(SHARES)[:, None], counts_DC.shape[1], axis=1)
    parts_D = np.zeros(len(counts_DC), np.int64)
    for document in np.argsort(-held_DC.sum(1), kind="stable"):
        part = int(np.argmax(lacks_PC @ held_DC[document]))
        lacks_PC[part] -= held_DC[document]
        parts_D[document] = part
    return parts_D


def choose(
    labels_N: NDArray[np.int8], parts_N: Indices, most: tuple[int, int, int], least: int, seed: int
) -> Examples | None:
    """Balanced tokens of one task, drawn without regard to anything but the seed.

    Args:
        labels_N: ``NO_TASK``, ``NEGATIVE`` or ``POSITIVE``.
        parts_N: the part that each token's document is in; -1 for a token of no task.
        most: of each part, its tokens at most.
        least: tokens of each class in each part, or there is nothing to be had.
    """
    order_N = np.random.default_rng(seed).permutation(len(labels_N))
    chosen = []
    for part, limit in zip((TRAIN, VALIDATION, TEST), most, strict=True):
        of_part = order_N[parts_N[order_N] == part]
        classes = [of_part[labels_N[of_part] == label] for label in (NEGATIVE, POSITIVE)]
        count = min(limit // 2, *map(len, classes))
        if count < least:
            return None
        chosen.append(np.sort(np.concatenate([tokens[:count] for tokens in classes])))
    return Examples(*chosen)
