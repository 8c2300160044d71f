"""Standard errors of means and ratios over observations that come in documents.

Tokens of one document are alike, so that it is documents that count as independent: a mean over 8,000
tokens of 20 documents is as uncertain as 20 numbers are. From a few documents their spread cannot be
told; then contexts count, and what they have in common is left out. Shapes: N observations, T texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

LEAST_DOCUMENTS = 10
"""With fewer, contexts are what counts as independent."""
PENDING = 1 << 16
"""Texts, one as often as it came, that are kept before they are put together."""
COUNT = "count"
"""Name of the sum that is added for each observation: how many there are."""


class Clusters:
    """Sums over the observations of each document in each context, in float64."""

    def __init__(self) -> None:
        self._texts = torch.zeros(0, 2, dtype=torch.int64)
        self._sums: dict[str, Tensor] = {}
        self._pending: list[tuple[Tensor, dict[str, Tensor]]] = []

    def add(self, texts_N2: Tensor, values: Mapping[str, Tensor]) -> None:
        """Take observations into account.

        Args:
            texts_N2: int64, document and context of each.
            values: name -> ``[N]``, the same names each time; how many there are is counted besides.
        """
        texts = texts_N2.cpu()
        given = {name: value.detach().double().cpu() for name, value in values.items()}
        given[COUNT] = torch.ones(len(texts), dtype=torch.float64)
        self._pending.append(_put_together(texts, given))
        if sum(len(texts) for texts, _ in self._pending) >= PENDING:
            self._settle()

    def merge(self, other: Clusters) -> None:
        """Take into account what another one has seen."""
        self._pending += other._all()
        self._settle()

    def error(self, over: Mapping[str, float], under: Mapping[str, float]) -> float | None:
        """Of a ratio of two sums, each a combination of those that are known: ``{"sae": 1, "clean": -1}``.

        The linearised ratio estimator (Cochran, 1977, chapter 6), without a correction for finite
        populations. None with a single document in a single context, or where it is not finite.
        """
        sums = self._independent()
        if not sums or len(sums[COUNT]) < 2:
            return None
        u, v = (_combined(sums, weights) for weights in (over, under))
        whole = math.fsum(v.tolist())
        if whole == 0 or not math.isfinite(whole):
            return None
        ratio = math.fsum(u.tolist()) / whole
        squares = math.fsum((u - ratio * v).square().tolist())
        found = math.sqrt(len(u) / (len(u) - 1) * squares) / abs(whole)
        return found if math.isfinite(found) else None

    def mean_error(self, name: str) -> float | None:
        """``error`` of a mean over observations."""
        return self.error({name: 1.0}, {COUNT: 1.0})

    def _all(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        return [(self._texts, self._sums)] * bool(len(self._texts)) + self._pending

    def _settle(self) -> None:
        parts, self._pending = self._all(), []
        if parts:
            names = parts[0][1]
            sums = {name: torch.cat([part[name] for _, part in parts]) for name in names}
            self._texts, self._sums = _put_together(torch.cat([texts for texts, _ in parts]), sums)

    def _independent(self) -> dict[str, Tensor]:
        """Name -> float64 ``[T]``: of documents, or of contexts where there are few documents."""
        self._settle()
        documents, contexts = (
            _put_together(numbers[:, None], self._sums) for numbers in self._texts.unbind(1)
        )
        return (documents if len(documents[0]) >= LEAST_DOCUMENTS else contexts)[1]


def _put_together(texts: Tensor, sums: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Each text once, and the sums of its rows."""
    found, place = texts.unique(dim=0, return_inverse=True)
    total = torch.zeros(len(found), dtype=torch.float64)
    return found, {name: total.index_add(0, place, values) for name, values in sums.items()}


def _combined(sums: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    parts = [weight * sums[name] for name, weight in weights.items()]
    return torch.stack(parts).sum(0)
