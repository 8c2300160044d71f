"""How well a probe tells a test part, and how sure that is: resampled by document.

Shapes: E examples, D test documents, R sets of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def document_weights(n_documents: int, resamples: int, seed: int | Sequence[int]) -> Floats:
    """``[1 + resamples, D]``: each document once; then how often it is in a sample of as many documents,
    drawn with replacement."""
    generator = np.random.default_rng(seed)
    shares = np.full(n_documents, 1 / max(n_documents, 1))
    drawn = generator.multinomial(n_documents, shares, size=resamples)
    return np.concatenate([np.ones((1, n_documents)), drawn]).astype(np.float64)


class Tally(NamedTuple):
    """What a probe does on the examples of each test document."""

    true_positive: Floats
    """``[D]``, as the next three."""
    false_positive: Floats
    false_negative: Floats
    true_negative: Floats
    scores: Floats
    """``[E]``, ascending; the next two are in that order."""
    labels: NDArray[np.bool_]
    documents: NDArray[np.int64]

    @classmethod
    def of(
        cls, scores_E: Floats, labels_E: NDArray[np.bool_], documents_E: NDArray[np.int64], n_documents: int
    ) -> Tally:
        """What such scores do.

        Args:
            scores_E: above 0 says that the token has the property.
            documents_E: the number of each example's document among those of the test part.
        """

        def count(which_E: NDArray[np.bool_]) -> Floats:
            return np.bincount(documents_E[which_E], minlength=n_documents).astype(np.float64)

        said, order = scores_E > 0, np.argsort(scores_E, kind="stable")
        return cls(
            count(said & labels_E),
            count(said & ~labels_E),
            count(~said & labels_E),
            count(~said & ~labels_E),
            scores_E[order],
            labels_E[order],
            documents_E[order],
        )

    def accuracy(self, weights_RD: Floats) -> Floats:
        """``[R]``; NaN where no example has weight, here and below."""
        right = self.true_positive + self.true_negative
        return ratio(weights_RD @ right, weights_RD @ (right + self.false_positive + self.false_negative))

    def f1(self, weights_RD: Floats) -> Floats:
        """``[R]``, of the positive class."""
        return self._f1_of(self.true_positive, weights_RD)

    def weighted_f1(self, weights_RD: Floats) -> Floats:
        """``[R]``: F1 of each of the two classes, weighted by its examples."""
        positives = weights_RD @ (self.true_positive + self.false_negative)
        negatives = weights_RD @ (self.true_negative + self.false_positive)
        of_both = self._f1_of(self.true_positive, weights_RD), self._f1_of(self.true_negative, weights_RD)
        return ratio(positives * of_both[0] + negatives * of_both[1], positives + negatives)

    def auc(self, weights_RD: Floats) -> Floats:
        """``[R]``: the chance that a positive scores above a negative; a tie is half of one."""
        weights_RE = weights_RD[:, self.documents]
        positive_RE = np.where(self.labels, weights_RE, 0.0)
        negative_RE = weights_RE - positive_RE
        first_of_tie = np.flatnonzero(np.diff(self.scores, prepend=-np.inf))
        positive_RT, negative_RT = (
            np.add.reduceat(each, first_of_tie, axis=1) for each in (positive_RE, negative_RE)
        )
        below_RT = negative_RT.cumsum(1) - negative_RT / 2
        return ratio((positive_RT * below_RT).sum(1), positive_RE.sum(1) * negative_RE.sum(1))

    def _f1_of(self, right_D: Floats, weights_RD: Floats) -> Floats:
        wrong = self.false_positive + self.false_negative
        return ratio(weights_RD @ (2 * right_D), weights_RD @ (2 * right_D + wrong))


def ratio(above: Floats, below: Floats) -> Floats:
    """Their ratio, NaN where it is not defined."""
    found = np.full(np.broadcast(above, below).shape, np.nan)
    return np.divide(above, below, out=found, where=below > 0)


def value_of(estimates_R: Floats) -> float | None:
    """The estimate from each document once."""
    return float(estimates_R[0]) if np.isfinite(estimates_R[0]) else None


def error_of(estimates_R: Floats) -> float | None:
    """Its standard error: the deviation over the resamples that define it."""
    defined = estimates_R[1:][np.isfinite(estimates_R[1:])]
    if len(defined) < 2 or not np.isfinite(estimates_R[0]):
        return None
    return float(defined.std(ddof=1))
