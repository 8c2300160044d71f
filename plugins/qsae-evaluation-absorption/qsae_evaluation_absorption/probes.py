"""Logistic probes. Shapes: N examples, D columns, C concepts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

EPOCHS, FIRST_RATE, LAST_RATE = 50, 1e-2, 1e-5
"""Of Adam; the rate falls exponentially, epoch by epoch."""
DENSE_BATCH, DENSE_DECAY = 64, 1e-4
SPARSE_BATCH, SPARSE_DECAY, L1 = 4096, 1e-6, 0.01
SPARSE_STEPS = 16
"""Batches that an epoch of the sparse probes has at least. SAEBench's 10^5 words make about as many of 4096;
with a batch for all words Adam would move the weights of all latents by about the same."""
MOST_ITERATIONS = 500


def dense_probes(x_ND: Floats, y_NC: Bools, seed: int) -> tuple[Floats, Floats]:
    """One-vs-rest probes on vectors: weights ``[D, C]`` and biases ``[C]``."""
    return _trained(x_ND, y_NC, DENSE_BATCH, DENSE_DECAY, 0.0, seed)


def sparse_probes(codes_NF: Any, y_NC: Bools, seed: int) -> Floats:
    """Weights ``[F, C]`` of one-vs-rest probes with L1 on codes.

    Args:
        codes_NF: a sparse array in compressed rows.
    """
    batch = min(SPARSE_BATCH, math.ceil(len(y_NC) / SPARSE_STEPS))
    return _trained(codes_NF, y_NC, batch, SPARSE_DECAY, L1, seed)[0]


def _trained(x_ND: Any, y_NC: Bools, batch: int, decay: float, l1: float, seed: int) -> tuple[Floats, Floats]:
    """Minimise the mean over examples and concepts of the cross-entropy, positives weighted by their rarity,
    plus l1 times the mean over concepts of the weights' L1 norm. Weights begin at 0.

    Args:
        y_NC: each column holds both values.
    """
    n, n_concepts = y_NC.shape
    W, b = Adam((x_ND.shape[1], n_concepts), decay), Adam((n_concepts,), decay)
    weight_C = (n - y_NC.sum(0)) / y_NC.sum(0)
    generator = np.random.default_rng(seed)
    for epoch in range(EPOCHS):
        rate = FIRST_RATE * (LAST_RATE / FIRST_RATE) ** (epoch / EPOCHS)
        order = generator.permutation(n)
        for start in range(0, n, batch):
            rows = order[start : start + batch]
            x, y = x_ND[rows], y_NC[rows]
            p = expit(x @ W.value + b.value)
            slope = np.where(y, weight_C * (p - 1), p) / y.size
            W.step(x.T @ slope + l1 / n_concepts * np.sign(W.value), rate)
            b.step(slope.sum(0), rate)
    return W.value, b.value


class Adam:
    """A parameter that begins at 0 and its moments, with torch's defaults. In numpy, because the first step
    of an optimizer of torch imports its compiler, which takes longer than the probes."""

    BETAS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, shape: tuple[int, ...], decay: float) -> None:
        self.value, self._mean, self._square = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._decay, self._steps = decay, 0

    def step(self, slope: Floats, rate: float) -> None:
        """Go down a slope; the weights' decay is a part of it."""
        self._steps += 1
        slope = slope + self._decay * self.value
        first, second = self.BETAS
        self._mean += (1 - first) * (slope - self._mean)
        self._square += (1 - second) * (slope**2 - self._square)
        size = np.sqrt(self._square / (1 - second**self._steps)) + self.EPSILON
        self.value -= rate / (1 - first**self._steps) * self._mean / size


def f1(y_N: Bools, predicted_N: Bools) -> float:
    """F1 of the positives; 0 where none is predicted."""
    return float(f1_score(y_N, predicted_N, zero_division=0.0))


def k_sparse_f1(train_NK: Floats, y_N: Bools, test_MK: Floats, test_y_M: Bools) -> float:
    """F1 on the test examples of a balanced logistic regression on a few latents."""
    probe = LogisticRegression(max_iter=MOST_ITERATIONS, class_weight="balanced").fit(train_NK, y_N)
    return f1(test_y_M, probe.decision_function(test_MK) > 0)
