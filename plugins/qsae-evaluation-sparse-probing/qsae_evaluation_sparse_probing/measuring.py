"""All probes of one task. Shapes: M chosen tokens, D latents, E examples, R sets of weights."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from qsae_evaluation_sparse_probing import SaeProbesConfig, SparseProbingConfig
from qsae_evaluation_sparse_probing.estimates import Floats, Tally, ratio
from qsae_evaluation_sparse_probing.examples import Examples
from qsae_evaluation_sparse_probing.probes import (
    Firing,
    Labels,
    Parts,
    one_hot,
    probe_scores,
    refitted_scores,
    standardized,
)

DENSE_FLOOR = 0.6
"""Below this accuracy of the dense probe the vectors do not hold a property well enough for a score."""


class Manner(NamedTuple):
    """In what the evaluations' probes differ."""

    scores: Callable[[Parts, Parts], Floats]
    """What a probe of features and labels says of the test part."""
    f1: Callable[[Tally, Floats], Floats]
    """Of a tally, by weights of documents."""


OWN = Manner(probe_scores, Tally.f1)
SAE_PROBES = Manner(refitted_scores, Tally.weighted_f1)


class Chosen(NamedTuple):
    """Everything that is known of the tokens of all tasks."""

    codes: sp.csr_array
    """``[M, D]``."""
    vectors: NDArray[np.float32]
    """``[M, d]``: what was encoded."""
    tokens: NDArray[np.int64]
    """``[M]``."""
    test_documents: NDArray[np.int64]
    """``[M]``: the number of its document among those to test on; -1 where it is of another part."""


class Task(NamedTuple):
    """One property, and the tokens that are asked about it."""

    name: str
    examples: Examples
    labels: Labels
    """``[M]``; what it says of tokens that are no examples does not matter."""


@dataclass
class Found:
    """What the probes of one task do; arrays are ``[R]``."""

    dense: dict[str, Floats]
    """``accuracy``, ``f1`` and ``auc`` of the probe on the raw vectors."""
    token: Floats
    """Accuracy of the probe on the token alone."""
    sparse: dict[int, dict[str, Floats]] = field(default_factory=dict)
    """k -> ``accuracy``, ``f1``, ``auc``, ``score``, ``random``, ``shuffled``; no k of more than fire."""
    latents: list[tuple[int, float, float, float]] = field(default_factory=list)
    """Of the largest k: latent, difference of means, share of positives and of negatives that it fires on."""
    differences: tuple[NDArray[np.int64], Floats] = (np.zeros(0, np.int64), np.zeros(0))
    """The latents that fire in training, and their differences of means."""


def measure(
    task: Task,
    chosen: Chosen,
    weights_RD: Floats,
    config: SparseProbingConfig | SaeProbesConfig,
    manner: Manner = OWN,
) -> Found:
    """Train and test every probe of a task."""
    labels = Parts(*(task.labels[rows] for rows in task.examples))
    documents_E = chosen.test_documents[task.examples.test]
    n_documents = weights_RD.shape[1]

    def tally(features: Parts, own: Parts = labels) -> Tally:
        return Tally.of(manner.scores(features, own), labels.test, documents_E, n_documents)

    vectors = Parts(*(chosen.vectors[rows].astype(np.float64) for rows in task.examples))
    dense = tally(standardized(vectors))
    token = tally(one_hot(Parts(*(chosen.tokens[rows] for rows in task.examples))))
    found = Found(_estimates(dense, weights_RD, manner), token.accuracy(weights_RD))
    firing = Firing.of(Parts(*(chosen.codes[rows] for rows in task.examples)))
    found.differences = firing.latents, firing.differences(labels.train)
    for k in sorted({k for k in config.k if k <= len(firing.latents)}):
        places = firing.strongest(labels.train, k)
        estimates = _estimates(tally(firing.columns(places)), weights_RD, manner)
        generator = np.random.default_rng([config.seed, zlib.crc32(task.name.encode()), k])
        random, shuffled = [], []
        for _ in range(config.controls):
            drawn = generator.choice(len(firing.latents), k, replace=False)
            random.append(tally(firing.columns(drawn)).accuracy(weights_RD))
            mixed = Parts(*map(generator.permutation, labels))
            of_mixed = firing.columns(firing.strongest(mixed.train, k))
            shuffled.append(tally(of_mixed, mixed).accuracy(weights_RD))
        estimates["random"], estimates["shuffled"] = np.mean(random, axis=0), np.mean(shuffled, axis=0)
        estimates["score"] = score(estimates["accuracy"], estimates["random"], found.dense["accuracy"])
        found.sparse[k] = estimates
        found.latents = _described(firing, places, labels.train)
    return found


def score(sparse_R: Floats, random_R: Floats, dense_R: Floats) -> Floats:
    """``(sparse - random) / (dense - random)``; NaN where the dense probe is below ``DENSE_FLOOR``, or no
    better than random latents."""
    if not dense_R[0] >= DENSE_FLOOR:
        return np.full_like(dense_R, np.nan)
    return ratio(sparse_R - random_R, dense_R - random_R)


def _estimates(tally: Tally, weights_RD: Floats, manner: Manner) -> dict[str, Floats]:
    return {
        "accuracy": tally.accuracy(weights_RD),
        "f1": manner.f1(tally, weights_RD),
        "auc": tally.auc(weights_RD),
    }


def _described(
    firing: Firing, places: NDArray[np.int64], labels_E: Labels
) -> list[tuple[int, float, float, float]]:
    fires = firing.columns(places).train != 0
    differences = firing.differences(labels_E)[places]
    shares = fires[labels_E].mean(0), fires[~labels_E].mean(0)
    rows = zip(firing.latents[places], differences, *shares, strict=True)
    return [(int(latent), float(d), float(pos), float(neg)) for latent, d, pos, neg in rows]
