"""Histograms with bars of equal width, as Neuronpedia draws them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BARS = 50
"""As SAEDashboard has them."""


class Bars(NamedTuple):
    """A histogram; empty where there is nothing to count."""

    values: list[float]
    """The middle of each bar."""
    heights: list[int]


def of_firings(counts: NDArray[Any], edges: NDArray[np.float64], largest: float) -> Bars:
    """Firings by magnitude, from bins that are even on a logarithmic scale, in bars that are even on a linear
    one.

    The bars go from the least bin that is not empty to the largest magnitude. Within a bin, firings are taken
    as even; heights are whole, and their sum is the number of firings.

    Args:
        counts: ``[B]``, the weakest bin first, which holds all that is weaker, too.
        edges: ``[B + 1]``, magnitudes.
        largest: the largest magnitude of all.
    """
    filled = counts.nonzero()[0]
    if len(filled) == 0:
        return Bars([], [])
    first, last = int(filled[0]), int(filled[-1])
    bounds = np.append(edges[first : last + 1], largest)
    if first == 0:
        bounds[0] = 0.0  # down to where is not known
    total = int(counts.sum())
    if bounds[0] >= largest:  # of one bit, at an edge
        return Bars([largest], [total])
    below = np.append(0, np.cumsum(counts[first : last + 1], dtype=np.int64))
    ends = np.linspace(bounds[0], largest, BARS + 1)
    heights = np.diff(np.rint(np.interp(ends, bounds, below)).astype(np.int64))
    return Bars(_middles(ends), heights.tolist())


def of_logits(counts: NDArray[Any], least: float, largest: float) -> Bars:
    """Tokens by logit, in bins of equal width from the least to the largest."""
    return Bars(_middles(np.linspace(least, largest, len(counts) + 1)), counts.astype(np.int64).tolist())


def _middles(ends: NDArray[np.float64]) -> list[float]:
    return [rounded(value) for value in (ends[:-1] + ends[1:]) / 2]


def rounded(value: float) -> float:
    """To five digits, however small it is: stored activations have four or five."""
    return float(f"{value:.5g}")
