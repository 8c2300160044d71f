"""The standard error of a mean over tokens that come in contexts. Shapes: B tokens, C contexts."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class ClusteredMean:
    """Mean over tokens, and its standard error where tokens of one context are not independent.

    With n_c tokens and the sum S_c of a context, N = sum n_c and m = sum S_c / N,
    ``error^2 = C / (C - 1) sum_c (S_c - m n_c)^2 / N^2``. No context may be cut in two by batches; core never
    does. Where contexts are not known, each token is one.
    """

    def __init__(self) -> None:
        self.n_clusters = self.n_tokens = 0
        self.total = 0.0
        self._squares = self._products = self._sizes = 0.0

    def add(self, values_B: Tensor, context_B: Tensor | None) -> None:
        """Take float64 values of a batch into account.

        Args:
            context_B: the context of each token; None: not known.
        """
        sizes_C = torch.ones_like(values_B)
        if context_B is not None:
            _, place_B, counts_C = context_B.unique(return_inverse=True, return_counts=True)
            sizes_C = counts_C.to(values_B.dtype)
            values_B = torch.zeros_like(sizes_C).index_add_(0, place_B, values_B)
        self.n_clusters += len(sizes_C)
        self.n_tokens += int(sizes_C.sum())
        self.total += float(values_B.sum())
        self._squares += float(values_B.square().sum())
        self._products += float((values_B * sizes_C).sum())
        self._sizes += float(sizes_C.square().sum())

    def merge(self, other: ClusteredMean) -> None:
        """Take what another one has seen, of other contexts, into account."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def mean(self) -> float | None:
        """None without tokens, or where it is not finite."""
        return finite(self.total / self.n_tokens) if self.n_tokens else None

    @property
    def error(self) -> float | None:
        """The standard error; None with fewer than two contexts."""
        mean = self.mean
        if mean is None or self.n_clusters < 2:
            return None
        spread = self._squares - 2 * mean * self._products + mean**2 * self._sizes
        scale = self.n_clusters / (self.n_clusters - 1)
        return finite(math.sqrt(scale * max(spread, 0.0)) / self.n_tokens)


def finite(value: float) -> float | None:
    """The value; None where it is not finite."""
    return value if math.isfinite(value) else None
