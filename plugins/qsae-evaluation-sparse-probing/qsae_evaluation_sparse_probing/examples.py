"""Which tokens each task is trained, validated and tested on. Shapes: N tokens, T tasks."""

from __future__ import annotations

from collections.abc import Mapping
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


def parts_of(sizes: Mapping[int, int]) -> dict[int, int]:
    """Document -> ``TRAIN``, ``VALIDATION`` or ``TEST``: the largest first, each to the part that lacks most.

    Args:
        sizes: document -> its tokens.
    """
    lacks = [share * sum(sizes.values()) for share in SHARES]
    found: dict[int, int] = {}
    for document, size in sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0])):
        part = max(range(len(SHARES)), key=lambda number: lacks[number])
        lacks[part] -= size
        found[document] = part
    return found


def choose(
    labels_N: NDArray[np.int8], parts_N: Indices, most: tuple[int, int, int], least: int, seed: int
) -> Examples | None:
    """Balanced tokens of one task, drawn without regard to anything but the seed.

    Args:
        labels_N: ``NO_TASK``, ``NEGATIVE`` or ``POSITIVE``.
        parts_N: the part that each token's document is in.
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
