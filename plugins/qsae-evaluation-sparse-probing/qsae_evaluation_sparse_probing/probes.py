"""Logistic probes, and which latents they read. Shapes: E examples, F features."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse weights of the L2 penalty that are tried, the strongest penalty first."""
WIDE_STRENGTHS = tuple(10.0 ** (5 - 10 * i / 9) for i in range(10))
"""Those of sae-probes, the weakest penalty first."""
MOST_STEPS = 2000
"""Steps of the solver at most."""
SPLIT_ONCE, SPLITS, MOST_HELD_OUT = 128, 6, 100
"""Of ``folds``; as in sae-probes."""


class Parts(NamedTuple):
    """Something of a task's three parts: features ``[E, F]`` or labels ``[E]``."""

    train: Any
    validation: Any
    test: Any


def probe_scores(features: Parts, labels: Parts) -> Floats:
    """``[E]``: what a logistic regression on the training part says of the test part; above 0 is a yes.

    The weight of its penalty is the one with the best accuracy on the validation part, of equal ones the
    strongest.
    """
    best, best_accuracy = None, -1.0
    for strength in STRENGTHS:
        probe = LogisticRegression(C=strength, max_iter=MOST_STEPS).fit(features.train, labels.train)
        accuracy = float((probe.predict(features.validation) == labels.validation).mean())
        if accuracy > best_accuracy:
            best, best_accuracy = probe, accuracy
    assert best is not None  # an accuracy is 0 or more
    return np.asarray(best.decision_function(features.test), np.float64)


def refitted_scores(features: Parts, labels: Parts) -> Floats:
    """As ``probe_scores``, but as sae-probes does: C has the best AUC on rows held out of the training part
    (``folds``), of equal ones the weakest penalty, and the probe is then fitted to all of that part. There is
    no validation part.
    """
    x, y, splits = features.train, labels.train, folds(labels.train)

    def auc(strength: float) -> float:
        found = []
        for fitted, held_out in splits:
            probe = LogisticRegression(C=strength, max_iter=MOST_STEPS).fit(x[fitted], y[fitted])
            found.append(roc_auc_score(y[held_out], probe.decision_function(x[held_out])))
        return float(np.mean(found))

    best = max(WIDE_STRENGTHS, key=auc)  # the first of equal ones
    probe = LogisticRegression(C=best, max_iter=MOST_STEPS).fit(x, y)
    return np.asarray(probe.decision_function(features.test), np.float64)


def folds(labels_E: Labels) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to fit to, and rows to choose by: the last fifth of each class, of both 100 at most; of fewer than
    128 examples six such pairs, which hold each row out once."""
    n = len(labels_E)
    if n < SPLIT_ONCE:
        return list(StratifiedKFold(SPLITS).split(np.zeros(n), labels_E))
    half = min(n // 5, MOST_HELD_OUT) // 2
    held_out = np.concatenate([np.flatnonzero(labels_E == label)[-half:] for label in (False, True)])
    return [(np.setdiff1d(np.arange(n), held_out), held_out)]


def standardized(vectors: Parts) -> Parts:
    """Vectors with mean 0 and variance 1 in the training part; a constant coordinate stays as it is."""
    mean, deviation = vectors.train.mean(0), vectors.train.std(0)
    scale = np.where(deviation > 0, deviation, 1.0)
    return Parts(*((part - mean) / scale for part in vectors))


def one_hot(tokens: Parts) -> Parts:
    """Sparse ``[E, F]``: which token it is, of those in the training part; another one is none of them."""
    known = np.unique(tokens.train)

    def encoded(ids_E: NDArray[np.int64]) -> sp.csr_array:
        place = np.searchsorted(known, ids_E).clip(max=len(known) - 1)
        rows = np.flatnonzero(known[place] == ids_E)
        return sp.csr_array((np.ones(len(rows)), (rows, place[rows])), shape=(len(ids_E), len(known)))

    return Parts(*map(encoded, tokens))


class Firing(NamedTuple):
    """The latents that fire in a training part, and their codes in all parts.

    Attributes:
        latents: int64 ``[F]``, ascending.
        codes: sparse ``[E, F]`` each, divided by the latent's mean magnitude where it fires in training.
    """

    latents: NDArray[np.int64]
    codes: Parts

    @classmethod
    def of(cls, codes: Parts) -> Firing:
        """Of sparse codes ``[E, D]`` of all latents in each part."""
        train = codes.train.tocsc()
        counts = np.asarray((train != 0).sum(0)).reshape(-1)
        latents = np.flatnonzero(counts)
        magnitude = np.asarray(abs(train).sum(0)).reshape(-1)[latents] / counts[latents]
        scale = sp.diags_array(1 / magnitude)
        return cls(latents, Parts(*((part.tocsc()[:, latents] @ scale).tocsc() for part in codes)))

    def differences(self, labels_E: Labels) -> Floats:
        """``[F]``: mean where the label is true, less the mean where it is not, in the training part."""
        train = self.codes.train
        return np.asarray(train.T @ (labels_E / labels_E.sum()) - train.T @ (~labels_E / (~labels_E).sum()))

    def strongest(self, labels_E: Labels, k: int) -> NDArray[np.int64]:
        """The places of the ``k`` latents with the largest differences, largest first; of equal ones, the
        first."""
        return np.argsort(-abs(self.differences(labels_E)), kind="stable")[:k]

    def columns(self, places: NDArray[np.int64]) -> Parts:
        """Dense ``[E, k]``: the codes of some latents."""
        return Parts(*(part[:, places].toarray() for part in self.codes))
