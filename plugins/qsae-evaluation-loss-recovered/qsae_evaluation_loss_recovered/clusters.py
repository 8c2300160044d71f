"""Standard errors of means and ratios over predictions that come in documents.

Predictions of one document are alike, so that it is documents that count as independent: a mean over 8,000
predictions of 20 documents is as uncertain as 20 numbers are. From a few documents their spread cannot be
told; then contexts count, and what they have in common is left out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)
LEAST_DOCUMENTS = 10
"""With fewer, contexts are what counts as independent."""

Sums = dict[str, float]
"""Name -> sum over predictions."""


class Clusters:
    """Sums over the predictions of each document in each context, in float64."""

    def __init__(self) -> None:
        self.sums: dict[tuple[int, int], Sums] = {}

    def add(self, texts_N2: Tensor, values: Mapping[str, Tensor]) -> None:
        """Take predictions into account.

        Args:
            texts_N2: int64, document and context of each prediction.
            values: name -> ``[N]``; ``predictions`` is counted besides.
        """
        found, place_N = texts_N2.unique(dim=0, return_inverse=True)
        counted = {**values, "predictions": torch.ones(len(place_N))}
        totals = {
            name: torch.zeros(len(found), dtype=torch.float64).index_add_(0, place_N, value_N.double().cpu())
            for name, value_N in counted.items()
        }
        for row, (document, context) in enumerate(found.tolist()):
            _add(self.sums, (document, context), {name: float(total[row]) for name, total in totals.items()})

    def merge(self, other: Clusters) -> None:
        """Take into account what another one has seen."""
        for text, its in other.sums.items():
            _add(self.sums, text, its)

    def error(self, over: Mapping[str, float], under: Mapping[str, float]) -> float | None:
        """Of a ratio of two sums, each a combination of those that are known: ``{"sae": 1, "clean": -1}``.

        The linearised ratio estimator (Cochran, 1977, chapter 6), without a correction for finite
        populations. None with a single document in a single context, or where it is not finite.
        """
        pairs = [(_combined(sums, over), _combined(sums, under)) for sums in self._independent()]
        n, whole = len(pairs), math.fsum(v for _, v in pairs)
        if n < 2 or whole == 0 or not math.isfinite(whole):
            return None
        ratio = math.fsum(u for u, _ in pairs) / whole
        squares = math.fsum((u - ratio * v) ** 2 for u, v in pairs)
        found = math.sqrt(n / (n - 1) * squares) / abs(whole)
        return found if math.isfinite(found) else None

    def _independent(self) -> Collection[Sums]:
        """What counts as independent: documents, or contexts where there are few documents."""
        by: tuple[dict[int, Sums], dict[int, Sums]] = ({}, {})
        for text, its in self.sums.items():
            for found, number in zip(by, text, strict=True):
                _add(found, number, its)
        documents, contexts = by
        return (documents if len(documents) >= LEAST_DOCUMENTS else contexts).values()


def _add(sums: dict[Key, Sums], key: Key, more: Mapping[str, float]) -> None:
    there = sums.setdefault(key, dict.fromkeys(more, 0.0))
    for name, value in more.items():
        there[name] += value


def _combined(sums: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return math.fsum(weight * sums[name] for name, weight in weights.items())
