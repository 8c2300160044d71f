"""What evaluations found while the coder was trained: their values over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from qsae_report import words
from qsae_report.charts import Axis, Curves, Series
from qsae_report.differences import N_TOKENS
from qsae_report.sections import Row
from qsae_report.subject import Evaluation, Subject

COUNT = "n_"
"""Values whose names begin so say how much was measured: they are in the table alone."""


class OnTheWay(NamedTuple):
    """An evaluation that was repeated in training, as the page shows it."""

    name: str
    note: str
    damage: Sequence[str]
    """Of steps whose results cannot be read."""
    charts: Sequence[Curves]
    """Of values that change, counts of what was measured left out."""
    headings: Sequence[str]
    rows: Sequence[Row]
    """A step each, and the values."""


def on_the_way(subject: Subject) -> list[OnTheWay]:
    """Every evaluation that was repeated in training; where it was run at the end too, that comes last."""
    return [_of(name, by_step, subject) for name, by_step in subject.coder.on_the_way.items()]


def _of(name: str, by_step: Mapping[int, Evaluation], subject: Subject) -> OnTheWay:
    end, last = subject.coder.evaluations.get(name), subject.coder.trained.get("steps")
    found = dict(by_step)
    if end is not None and last is not None and not _is_empty(end):
        found[last] = end
    values = _values(found)
    rows = [
        Row(_step(step, last), [words.number(of_step.get(step)) for of_step in values.values()])
        for step in found
        if found[step].result is not None
    ]
    damage = [stored.damage for stored in found.values() if stored.damage is not None]
    return OnTheWay(name, _note(found, last), damage, _charts(found, values), list(values), rows)


def _is_empty(stored: Evaluation) -> bool:
    return stored.result is None or all(value is None for value in stored.result.values.values())


def _step(step: int, last: int | None) -> str:
    return f"{step:,}, the end" if step == last else f"{step:,}"


def _note(found: Mapping[int, Evaluation], last: int | None) -> str:
    """Behind how many steps, and whether all are of as many tokens."""
    on_way = [step for step in found if step != last]
    ended = ", and at the end" if last in found else ""
    times = f"{len(on_way)} {'step' if len(on_way) == 1 else 'steps'}"
    counts = {s.result.values.get(N_TOKENS) for s in found.values() if s.result is not None}
    differ = f" Not all are of as many tokens ({N_TOKENS})." if len(counts) > 1 else ""
    where = "RUN/evaluations/step_*/"
    return f"Measured behind {times} of training{ended}: {where}. Bars are ± a standard error.{differ}"


def _values(found: Mapping[int, Evaluation]) -> dict[str, dict[int, float | None]]:
    """Name of a value -> step -> value, in the order in which results have them."""
    values: dict[str, dict[int, float | None]] = {}
    for step, stored in found.items():
        for name, value in (stored.result.values if stored.result is not None else {}).items():
            values.setdefault(name, {})[step] = value
    return values


def _charts(
    found: Mapping[int, Evaluation], values: Mapping[str, Mapping[int, float | None]]
) -> list[Curves]:
    charts = []
    for name, by_step in values.items():
        known = {step: value for step, value in by_step.items() if value is not None}
        if len(set(known.values())) < 2 or name.startswith(COUNT):
            continue
        results = [found[step].result for step in known]
        errors = [None if result is None else result.uncertainty.get(name) for result in results]
        series = Series("", list(known), list(known.values()), errors, points=True)
        charts.append(Curves(name, Axis("step"), Axis("value"), [series]))
    return charts
