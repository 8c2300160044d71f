"""What latents are called, from every evaluation that names them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from qsae_report.subject import Evaluation

LATENT, LABEL, SCORE = "latent", "label", "score"
"""Columns of a table: with the first two it names latents, the third says how well a name fits."""


class Label(NamedTuple):
    """A name of a latent, and where it came from."""

    latent: int
    text: str
    source: str
    score: float | None


def labels(evaluations: Mapping[str, Evaluation], n_latents: int) -> list[Label]:
    """Every name that a table with the columns ``latent`` and ``label`` gives, in the order of latents."""
    found = [label for stored in evaluations.values() for label in _of(stored, n_latents)]
    return sorted(found, key=lambda label: label.latent)


def _of(stored: Evaluation, n_latents: int) -> Iterator[Label]:
    for table in stored.result.tables.values() if stored.result is not None else ():
        if LATENT not in table.columns or LABEL not in table.columns:
            continue
        places = [table.columns.index(name) for name in (LATENT, LABEL)]
        scored = table.columns.index(SCORE) if SCORE in table.columns else None
        for row in table.rows:
            number, text = (row[place] for place in places)
            score = None if scored is None else row[scored]
            if not isinstance(number, int) or not 0 <= number < n_latents or text is None:
                continue
            good = float(score) if isinstance(score, int | float) else None
            yield Label(number, str(text), stored.name, good)
