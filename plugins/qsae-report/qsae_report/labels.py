"""What latents are called, from every evaluation that names them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from qsae_report.subject import Evaluation

LATENT, LABEL, SCORE, ERROR, CONTROL = "latent", "label", "score", "error", "control"
"""Columns of a table: with the first two it names latents. The third says how well a name fits, the fourth
the standard error of the score of a name that says nothing, the last the score of another latent's name."""
QUANTILE = 1.96
"""Standard errors that a name's score has to be above chance: 1 of 40 names that say nothing is."""


class Label(NamedTuple):
    """A name of a latent, and where it came from."""

    latent: int
    text: str
    source: str
    score: float | None
    sure: bool | None = None
    """Whether the score is above chance; None where the table does not say what chance is, or the error."""
    chance: float | None = None
    """The mean score of other latents' names."""
    error: float | None = None


def labels(evaluations: Mapping[str, Evaluation], n_latents: int) -> list[Label]:
    """Every name that a table with the columns ``latent`` and ``label`` gives, in the order of latents."""
    found = [label for stored in evaluations.values() for label in _of(stored, n_latents)]
    return sorted(found, key=lambda label: label.latent)


def _of(stored: Evaluation, n_latents: int) -> Iterator[Label]:
    for table in stored.result.tables.values() if stored.result is not None else ():
        if LATENT not in table.columns or LABEL not in table.columns:
            continue
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        controls = [control for row in rows if (control := _number(row.get(CONTROL))) is not None]
        chance = sum(controls) / len(controls) if controls else None
        for row in rows:
            number, text = row[LATENT], row[LABEL]
            if not isinstance(number, int) or not 0 <= number < n_latents or text is None:
                continue
            score, error = _number(row.get(SCORE)), _number(row.get(ERROR))
            if score is None or error is None or chance is None:
                yield Label(number, str(text), stored.name, score)
            else:
                sure = score > chance + QUANTILE * error
                yield Label(number, str(text), stored.name, score, sure, chance, error)


def _number(cell: object) -> float | None:
    return float(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else None
