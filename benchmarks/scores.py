"""Scores of a trained coder from arrays alone, the same functions for every side.

Shapes: N held-out vectors, D width, F latents, A true atoms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def fvu(x_ND: Array, x_hat_ND: Array) -> float:
    """``sum ||x - x_hat||^2 / sum ||x - mean||^2`` in float64: 0 is perfect, 1 is the mean alone."""
    x = x_ND.astype(np.float64)
    return float(np.square(x - x_hat_ND).sum() / np.square(x - x.mean(0)).sum())


def score(x_ND: Array, arrays: Mapping[str, Array], dictionary_AD: Array | None) -> dict[str, float]:
    """``fvu``, ``l0``, ``dead`` (share of the latents), and ``mcc``, ``mmcs`` where the true atoms are known.

    Args:
        arrays: ``x_hat`` ``[N, D]``, ``fired`` ``[F]`` (vectors on which a latent is active), ``atoms``.
    """
    fired = arrays["fired"]
    values = {"fvu": fvu(x_ND, arrays["x_hat"]), "l0": fired.sum() / len(x_ND), "dead": (fired == 0).mean()}
    if dictionary_AD is not None:
        values |= recovery(arrays["atoms"], dictionary_AD)
    return {name: float(value) for name, value in values.items()}


def recovery(atoms_FD: Array, dictionary_AD: Array) -> dict[str, float]:
    """How well a decoder's rows are the true atoms.

    ``mcc``: mean of |cos| over the pairs of the one-to-one matching that makes it largest (A or F pairs, the
    smaller). ``mmcs``: mean over true atoms of the largest |cos| with any row.
    """
    cosines_AF = np.abs(_unit_rows(dictionary_AD) @ _unit_rows(atoms_FD).T)
    smaller_first = cosines_AF if len(cosines_AF) <= cosines_AF.shape[1] else cosines_AF.T
    chosen = match(-smaller_first)
    pairs = smaller_first[np.arange(len(chosen)), chosen]
    return {"mcc": float(pairs.mean()), "mmcs": float(cosines_AF.max(1).mean())}


def match(cost_RC: Array) -> NDArray[np.int64]:
    """The column of each row in the one-to-one matching of least total cost; rows may not outnumber columns.

    The Hungarian method by shortest augmenting paths (Jonker and Volgenant, 1987): rows enter one by one, and
    potentials u, v keep every reduced cost ``cost - u - v`` at 0 or above.
    """
    rows, columns = cost_RC.shape
    if rows > columns:
        raise ValueError(f"{rows} rows for {columns} columns")
    u, v = np.zeros(rows), np.zeros(columns)
    row_of = np.full(columns, -1)
    for row in range(rows):
        distance, previous = np.full(columns, math.inf), np.full(columns, -1)
        done = np.zeros(columns, dtype=bool)
        at_row, at_column, travelled = row, -1, 0.0
        while at_row >= 0:
            through = travelled + cost_RC[at_row] - u[at_row] - v
            nearer = ~done & (through < distance)
            distance[nearer], previous[nearer] = through[nearer], at_column
            at_column = int(np.where(done, math.inf, distance).argmin())
            travelled, at_row = distance[at_column], row_of[at_column]
            done[at_column] = True
        inner = done & (row_of >= 0)
        u[row_of[inner]] += travelled - distance[inner]
        u[row] += travelled
        v[done] -= travelled - distance[done]
        while at_column >= 0:
            before = previous[at_column]
            row_of[at_column] = row if before < 0 else row_of[before]
            at_column = before
    column_of = np.empty(rows, dtype=np.int64)
    taken = row_of >= 0
    column_of[row_of[taken]] = np.flatnonzero(taken)
    return column_of


def _unit_rows(rows: Array) -> Array:
    """In float64; a row of zeros stays one."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1.0)
