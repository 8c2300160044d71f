"""How well a probe tells a test part, and how sure that is: resampled by document.

Shapes: E examples, D test documents, R sets of weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def document_weights(n_documents: int, resamples: int, seed: int) -> Floats:
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
    in_order: Floats
    """``[D, D]``: pairs of a positive of the first document and a negative of the second that its scores put
    in the right order; a tie is half a pair."""

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

        said = scores_E > 0
        positive, negative = scores_E[labels_E, None], scores_E[None, ~labels_E]
        higher = (positive > negative) + 0.5 * (positive == negative)
        rows, columns = (np.eye(n_documents)[documents_E[which]] for which in (labels_E, ~labels_E))
        return cls(
            count(said & labels_E),
            count(said & ~labels_E),
            count(~said & labels_E),
            count(~said & ~labels_E),
            rows.T @ higher @ columns,
        )

    def accuracy(self, weights_RD: Floats) -> Floats:
        """``[R]``; NaN where no example has weight, here and below."""
        right = self.true_positive + self.true_negative
        return ratio(weights_RD @ right, weights_RD @ (right + self.false_positive + self.false_negative))

    def f1(self, weights_RD: Floats) -> Floats:
        """``[R]``, of the positive class."""
        twice = 2 * self.true_positive
        return ratio(weights_RD @ twice, weights_RD @ (twice + self.false_positive + self.false_negative))

    def auc(self, weights_RD: Floats) -> Floats:
        """``[R]``: the chance that a positive scores above a negative."""
        positives = weights_RD @ (self.true_positive + self.false_negative)
        negatives = weights_RD @ (self.false_positive + self.true_negative)
        in_order = ((weights_RD @ self.in_order) * weights_RD).sum(1)
        return ratio(in_order, positives * negatives)


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
