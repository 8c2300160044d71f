"""From examples of concepts to absorption: SAEBench's steps 1 to 4.

Shapes: N examples, D width, F latents, C concepts, A active latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from qsae_evaluation_absorption.definition import Active, Score, absorption
from qsae_evaluation_absorption.probes import (
    Bools,
    Floats,
    Ints,
    dense_probes,
    f1,
    k_sparse_f1,
    sparse_probes,
)

MOST_LATENTS = 10
"""k of the largest k-sparse probe."""
JUMP = 0.03
"""By which F1 has to rise for one more latent to be among a concept's main ones."""


@dataclass(frozen=True)
class Examples:
    """Tokens with a label for each concept.

    Attributes:
        x: ``[N, D]``: the vectors that the coder reconstructs.
        codes: sparse array ``[N, F]`` in compressed rows, without stored zeros.
        labels: ``[N, C]``.
        train: ``[N]``: what probes are trained on; all else is tested on.
    """

    x: Floats
    codes: Any
    labels: Bools
    train: Bools


@dataclass
class Concept:
    """What was found of one concept.

    Attributes:
        probe_f1: of the dense probe on the test examples; None where train or test examples lack positives
            or negatives, and nothing more is known.
        main: the main latents, the strongest first.
        main_f1: of the k-sparse probe on them.
        rows: the probe's true positives: test examples with the concept that the dense probe gets right.
        scores: absorption on each of them.
        by_chance: the same with random latents in the main ones' place.
        n_against: of them, those with a projection of 0 or less, on which nothing counts as absorbed.
    """

    name: str
    probe_f1: float | None = None
    main: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    main_f1: float | None = None
    rows: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    scores: list[Score] = field(default_factory=list)
    by_chance: list[Score] = field(default_factory=list)
    n_against: int = 0


def measured(examples: Examples, atoms_FD: Floats, names: Sequence[str], seed: int) -> list[Concept]:
    """Probes, main latents and absorption of every concept.

    Args:
        atoms_FD: decoder rows in the space of ``examples.x``, of any norm.
        names: of the concepts.
    """
    with threadpool_limits(1, "blas"):  # the matrices are too small for threads, which wait for each other
        return _measured(*_with_unit_rows(examples, atoms_FD), names, seed)


def _with_unit_rows(examples: Examples, atoms_FD: Floats) -> tuple[Examples, Floats]:
    """The same coder with unit decoder rows: codes f_j ||w_j||, so that no step hangs on how a coder shares
    a latent's size among code and row."""
    norms = np.linalg.norm(atoms_FD, axis=1).astype(np.float64)
    codes = examples.codes.copy()
    codes.data *= norms[codes.indices]
    unit = np.divide(atoms_FD, norms[:, None], out=np.zeros(atoms_FD.shape), where=norms[:, None] > 0)
    return replace(examples, codes=codes), unit


def _measured(examples: Examples, atoms_FD: Floats, names: Sequence[str], seed: int) -> list[Concept]:
    train, labels = examples.train, examples.labels
    known = np.ones(len(names), dtype=bool)
    for part in (labels[train], labels[~train]):
        known &= part.any(0) & ~part.all(0) if len(part) else False
    concepts = [Concept(name) for name in names]
    if not known.any():
        return concepts
    y = labels[:, known]
    W_DC, b_C = dense_probes(examples.x[train], y[train], seed)
    columns, weights = _latent_weights(examples, y, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        units = W_DC / np.linalg.norm(W_DC, axis=0)
    predicted = examples.x @ W_DC + b_C > 0
    generator = np.random.default_rng(seed)
    for i, number in enumerate(known.nonzero()[0]):
        concept = concepts[number]
        concept.probe_f1 = f1(y[~train, i], predicted[~train, i])
        concept.rows = (~train & y[:, i] & predicted[:, i]).nonzero()[0]
        if not len(concept.rows):
            continue
        concept.main, concept.main_f1 = _main_latents(examples, y[:, i], columns, weights[:, i])
        others = np.setdiff1d(columns, concept.main)
        size = min(len(concept.main), len(others))
        random = generator.choice(others, size, replace=False) if size else others[:0]
        _score(concept, random, examples, atoms_FD, units[:, i])
    return concepts


def _latent_weights(examples: Examples, y_NC: Bools, seed: int) -> tuple[Ints, Floats]:
    """The latents that fire on a train example, and their weights ``[F', C]`` in the L1 probes."""
    codes = examples.codes[examples.train]
    columns = np.unique(codes.indices).astype(np.int64)
    if not len(columns):
        return columns, np.zeros((0, y_NC.shape[1]))
    return columns, sparse_probes(codes[:, columns], y_NC[examples.train], seed)


def _main_latents(
    examples: Examples, y_N: Bools, columns: Ints, weights: Floats
) -> tuple[Ints, float | None]:
    """As many of the latents with the largest weights as each raise F1 by more than ``JUMP``, but one."""
    strongest = columns[np.argsort(-weights, kind="stable")[:MOST_LATENTS]]
    if not len(strongest):
        return strongest, None
    dense = examples.codes[:, strongest].toarray()
    train, best, k = examples.train, -np.inf, 0
    while k < len(strongest):
        few = dense[:, : k + 1]
        score = k_sparse_f1(few[train], y_N[train], few[~train], y_N[~train])
        if not score > best + JUMP:
            break
        best, k = score, k + 1
    return strongest[:k], float(best)


def _score(concept: Concept, random: Ints, examples: Examples, atoms_FD: Floats, unit_D: Floats) -> None:
    """Fill in absorption on the concept's true positives."""
    codes = examples.codes
    for row in concept.rows:
        entries = slice(codes.indptr[row], codes.indptr[row + 1])
        latents = codes.indices[entries].astype(np.int64)
        cosines = atoms_FD[latents] @ unit_D
        active = Active(latents, codes.data[entries], cosines, cosines)
        projection = float(examples.x[row] @ unit_D)
        concept.scores.append(absorption(active, concept.main, projection))
        concept.by_chance.append(absorption(active, random, projection))
        concept.n_against += projection <= 0
