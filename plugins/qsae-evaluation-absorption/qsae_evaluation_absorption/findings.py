"""From what was found of concepts to a ``Result``: the gate, means over concepts, tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from qsae_core.contracts import Result, Table
from qsae_evaluation_absorption.definition import Score
from qsae_evaluation_absorption.steps import Concept

MIN_F1 = 0.6
"""Of the dense probe: a concept above it is one that the language model has."""
EXAMPLES_SHOWN = 200
"""Rows of the table of absorbed tokens at most."""


class Names(NamedTuple):
    """How the values of an evaluation are called."""

    fraction: str
    fraction_spread: str
    full: str
    full_spread: str
    split: str
    split_spread: str
    concept: str
    """``letter``"""


def result_of(
    concepts: Sequence[Concept], names: Names, least: int, n_latents: int, token: Callable[[int], str]
) -> Result:
    """Means over the concepts that pass the gate; None where fewer than ``least`` do.

    Args:
        token: row of the examples -> its text.
    """
    passing = [c for c in concepts if c.probe_f1 is not None and c.probe_f1 > MIN_F1]
    enough = len(passing) >= least
    tables = {f"{names.concept}s": _table(concepts, names.concept)}
    reason = (
        f"{len(passing)} of {len(concepts)} {names.concept}s pass (F1 of the dense probe > {MIN_F1}), and at "
        f"least {least} have to: not applicable"
    )
    tables["absorbed"] = _absorbed(passing, names.concept, token)
    counted = passing if enough else []
    values, chance, errors = _means(counted, names)
    values[f"{names.concept}s_passed"] = float(len(passing))
    values["main_latents_fire"] = _mean([_share(c.scores, "main_fires") for c in counted])
    chance["main_latents_fire"] = _mean([_share(c.by_chance, "main_fires") for c in counted])
    columns = _columns(counted, n_latents)
    return Result(values, chance, {}, errors, columns, tables, reason=None if enough else reason)


Scalars = dict[str, float | None]


def _means(concepts: Sequence[Concept], names: Names) -> tuple[Scalars, Scalars, Scalars]:
    """Values, chance and standard errors."""
    values: Scalars = {}
    chance: Scalars = {}
    errors: Scalars = {}
    by_name = {
        (names.fraction, names.fraction_spread): "fraction",
        (names.full, names.full_spread): "full",
    }
    for (name, spread), what in by_name.items():
        found = [_share(c.scores, what) for c in concepts]
        values[name], values[spread] = _mean(found), _spread(found)
        chance[name] = _mean([_share(c.by_chance, what) for c in concepts])
        errors[name] = _error(found)
    sizes = [float(len(c.main)) for c in concepts]
    values[names.split], values[names.split_spread] = _mean(sizes), _spread(sizes)
    errors[names.split] = _error(sizes)
    return values, chance, errors


def _share(scores: Sequence[Score], what: str) -> float:
    """Mean over a concept's true positives, of which one that passes has some."""
    return statistics.fmean(float(getattr(score, what)) for score in scores)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _spread(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _error(values: Sequence[float]) -> float | None:
    spread = _spread(values)
    return None if spread is None else float(spread / len(values) ** 0.5)


def _table(concepts: Sequence[Concept], name: str) -> Table:
    """Every concept, those that fail the gate as well."""
    columns = (
        name,
        "probe_f1",
        "num_probe_true_positives",
        "mean_absorption_fraction",
        "full_absorption_rate",
        "num_full_absorption",
        "num_split_features",
        "main_latents_f1",
        "main_latents_fire",
        "projection_not_positive",
        "main_latents",
    )
    rows: list[list[str | int | float | None]] = []
    for c in concepts:
        known = bool(c.scores)
        rows.append(
            [
                c.name,
                c.probe_f1,
                None if c.probe_f1 is None else len(c.rows),
                _share(c.scores, "fraction") if known else None,
                _share(c.scores, "full") if known else None,
                sum(s.full for s in c.scores) if known else None,
                len(c.main) if known else None,
                c.main_f1,
                _share(c.scores, "main_fires") if known else None,
                c.n_against if known else None,
                str(c.main.tolist()),
            ]
        )
    return Table(columns, rows)


def _absorbed(concepts: Sequence[Concept], name: str, token: Callable[[int], str]) -> Table:
    """Tokens on which something is absorbed, most of it first, and the latent that projects most there."""
    found = [
        (-score.fraction, not score.full, number, int(row), score.top)
        for number, c in enumerate(concepts)
        for row, score in zip(c.rows, c.scores, strict=True)
        if score.fraction > 0 or score.full
    ]
    rows: list[list[str | int | float | None]] = [
        [concepts[number].name, repr(token(row)), -fraction, int(not partial), top]
        for fraction, partial, number, row, top in sorted(found)[:EXAMPLES_SHOWN]
    ]
    return Table((name, "token", "absorption_fraction", "full_absorption", "top_latent"), rows)


def _columns(concepts: Sequence[Concept], n_latents: int) -> dict[str, torch.Tensor]:
    """Of each latent: for how many concepts it is a main one, and on how many tokens it absorbs one fully."""
    main, absorbs = torch.zeros(n_latents), torch.zeros(n_latents)
    for c in concepts:
        main[torch.from_numpy(c.main)] += 1
        for score in c.scores:
            if score.full:
                absorbs[score.top] += 1
    if not concepts:
        main, absorbs = main + torch.nan, absorbs + torch.nan
    return {"main_of": main, "full_absorptions": absorbs}
