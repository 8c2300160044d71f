"""How right a judge was. Shapes: P latents.

An answer that failed counts as a half: right by half, and half a window that was named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Answers = Sequence[float | None]
RESAMPLES = 2000
"""Resamples of latents for the standard error and the interval of a mean."""
TAIL = 0.025
"""Share of the resamples on either side of the interval."""
ENOUGH = 5
"""Latents below which resamples say nothing of a mean."""


def named(answer: float | None) -> float:
    """1 where the answer says that the latent fires, 0 where not, .5 where it failed."""
    return 0.5 if answer is None else float(answer > 0.5)


def balanced_accuracy(answers: Answers, fires: Sequence[bool]) -> float:
    """The mean of the share of windows where it fires that are named, and of those where it is silent that
    are not: .5 for whoever answers without looking."""
    right = [named(a) if f else 1 - named(a) for a, f in zip(answers, fires, strict=True)]
    of_each = [[r for r, f in zip(right, fires, strict=True) if f is kind] for kind in (True, False)]
    return sum(sum(some) / len(some) for some in of_each) / 2


def chance_error(answers: Answers, fires: Sequence[bool]) -> float:
    """Standard error of the balanced accuracy of whoever names as many windows without looking.

    sqrt(q (1 - q) (1 / P + 1 / N)) / 2 of P windows where it fires and N where it is silent, as of two equal
    proportions. q is the share that is named, with one more that is named and one that is not, so that a few
    equal answers do not make it 0.
    """
    n_firing, n = sum(fires), len(fires)
    q = (sum(named(a) for a in answers) + 1) / (n + 2)
    return math.sqrt(q * (1 - q) * (1 / n_firing + 1 / (n - n_firing))) / 2


def f1(answers: Answers, fires: Sequence[bool]) -> float:
    """2 TP / (2 TP + FP + FN) of the windows where it fires."""
    hits = sum(named(a) for a, f in zip(answers, fires, strict=True) if f)
    return 2 * hits / (sum(named(a) for a in answers) + sum(fires))


def auc(answers: Answers, fires: Sequence[bool]) -> float:
    """The chance that a window where it fires has a larger probability than one where it is silent; equal
    ones, and those of an answer that failed, count as a half."""
    firing = [a for a, f in zip(answers, fires, strict=True) if f]
    silent = [a for a, f in zip(answers, fires, strict=True) if not f]
    return sum(_larger(a, b) for a in firing for b in silent) / (len(firing) * len(silent))


def _larger(a: float | None, b: float | None) -> float:
    return 0.5 if a is None or b is None or a == b else float(a > b)


class Interval(NamedTuple):
    """Of the mean over latents, from resamples of them."""

    error: float
    """Standard error."""
    low: float
    high: float


def interval(values_P: Tensor, seed: int) -> Interval | None:
    """By bootstrap (Efron 1979): latents are drawn with replacement; None for fewer than ``ENOUGH``."""
    n = len(values_P)
    if n < ENOUGH:
        return None
    drawn = torch.randint(n, (RESAMPLES, n), generator=torch.Generator().manual_seed(seed))
    means = values_P.double()[drawn].mean(1)
    low, high = means.quantile(torch.tensor([TAIL, 1 - TAIL], dtype=torch.float64)).tolist()
    return Interval(float(means.std()), low, high)
