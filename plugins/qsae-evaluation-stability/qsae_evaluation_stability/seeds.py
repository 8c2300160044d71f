"""Every pair of runs, matched. Shapes: F latents, D width of an atom."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from qsae_core.measuring import match, mean


class Pair(NamedTuple):
    """Two runs."""

    pw_mcc: float | None
    """Mean cosine of the pairs whose cosines have the largest sum; None where an atom of neither has a
    direction."""
    pw_mcc_abs: float | None
    """The same with |cos|."""
    n_pairs: int
    matching: str


def all_pairs(dictionaries: Sequence[Tensor], exact_up_to: int) -> dict[tuple[int, int], Pair]:
    """Numbers of two runs, the smaller first -> how alike their unit rows ``[F, D]`` are."""
    numbers = range(len(dictionaries))
    return {
        (i, j): pair(dictionaries[i], dictionaries[j], exact_up_to)
        for i, j in itertools.combinations(numbers, 2)
    }


def pair(a_FD: Tensor, b_FD: Tensor, exact_up_to: int) -> Pair:
    """How alike the rows of two runs are."""
    signed = match(a_FD, b_FD, exact_up_to=exact_up_to)
    unsigned = match(a_FD, b_FD, exact_up_to=exact_up_to, absolute=True)
    return Pair(mean(signed.cosines), mean(unsigned.cosines.abs()), len(signed.rows), signed.how)


def average(values: Sequence[float | None]) -> float | None:
    """Of those that are defined; None where none is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def spread(values: Sequence[float | None]) -> float | None:
    """Standard deviation of those that are defined; None below two."""
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def jackknife(of_pairs: Mapping[tuple[int, int], float | None], n_runs: int) -> float | None:
    """Standard error of the mean over pairs of runs: from the means without each of the runs, since pairs
    share runs and are not independent. None below three runs."""
    without = [average([v for pair, v in of_pairs.items() if run not in pair]) for run in range(n_runs)]
    known = [value for value in without if value is not None]
    if len(known) < n_runs or n_runs < 3:
        return None
    centre = statistics.fmean(known)
    return float(((n_runs - 1) / n_runs * sum((value - centre) ** 2 for value in known)) ** 0.5)
