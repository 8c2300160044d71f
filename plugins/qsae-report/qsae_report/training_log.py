"""What a run logged while it trained, finished or not. Imports no torch."""

from __future__ import annotations

import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from qsae_core.errors import ArtifactError
from qsae_core.runs import FLOAT_TWIN

LOG = pathlib.Path("metrics") / "log.jsonl"
STEP_FILE = re.compile(r"step_(\d+)\.json")


class Member(NamedTuple):
    """A coder of a run."""

    twin: bool = False
    """Whether it is the float twin."""
    layer: str | None = None
    """Where the run has a coder for each of several."""

    def __str__(self) -> str:
        parts = ["float twin"] * self.twin + [f"layer {self.layer}"] * (self.layer is not None)
        return ", ".join(parts)


Points = dict[int, "float | None"]
"""Step -> value."""


@dataclass(frozen=True)
class TrainingLog:
    """What was logged.

    Attributes:
        values: measure -> coder -> values of its batches.
        held_out: the same of held-out vectors.
        notes: what could not be read.
    """

    values: Mapping[str, Mapping[Member, Points]] = field(default_factory=dict)
    held_out: Mapping[str, Mapping[Member, Points]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def read_training_log(run: pathlib.Path, measures: Sequence[str]) -> TrainingLog:
    """Some measures of a run's log, and of its measurements on the way.

    A last line that a run which still trains, or was killed, has not written to its end is left out. Lines of
    a step that is there twice are of a run that was taken up again: the last one counts.

    Args:
        run: its folder.
        measures: such as ``loss`` and ``fvu``; parts of the loss are none of these.

    Raises:
        ArtifactError: if the log is there and cannot be read.
    """
    notes: list[str] = []
    values: dict[str, dict[Member, Points]] = {}
    for row in _rows(run / LOG, notes):
        step = row["step"]
        for key, value in row.items():
            found = _named(key, measures)
            if found is not None:
                values.setdefault(found[0], {}).setdefault(found[1], {})[step] = _number(value)
    return TrainingLog(values, _held_out(run / "metrics", measures, notes), notes)


def _rows(file: pathlib.Path, notes: list[str]) -> list[dict[str, Any]]:
    try:
        lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        notes.append(f"there is no {LOG.as_posix()}, so there are no curves")
        return []
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", where=str(file)) from error
    if lines[-1]:
        notes.append("the log's last line is not written to its end, and left out")
    parsed = [_row(line) for line in lines[:-1]]
    damaged = [number for number, row in enumerate(parsed, 1) if row is None]
    if damaged:
        which = (
            f"line {damaged[0]} of the log is"
            if len(damaged) == 1
            else f"{len(damaged)} lines of the log are"
        )
        notes.append(f"{which} no JSON with a step, and left out")
    return [row for row in parsed if row is not None]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    is_row = isinstance(row, dict) and type(row.get("step")) is int
    return row if is_row else None


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _named(key: str, measures: Sequence[str]) -> tuple[str, Member] | None:
    """``fvu``, ``float_twin/fvu``, ``3/fvu`` and ``float_twin/3/fvu``; ``loss/l0`` is a part of a loss."""
    prefix, _, measure = key.rpartition("/")
    if measure not in measures or prefix == "loss" or prefix.endswith("/loss"):
        return None
    twin = prefix == FLOAT_TWIN or prefix.startswith(f"{FLOAT_TWIN}/")
    layer = prefix.removeprefix(FLOAT_TWIN).removeprefix("/") if twin else prefix
    return measure, Member(twin, layer or None)


def _held_out(
    folder: pathlib.Path, measures: Sequence[str], notes: list[str]
) -> dict[str, dict[Member, Points]]:
    found: dict[str, dict[Member, Points]] = {}
    for file in sorted(folder.glob("step_*.json")):
        number = STEP_FILE.fullmatch(file.name)
        if number is None:
            continue
        try:
            coders = json.loads(file.read_bytes())
        except (OSError, ValueError):
            notes.append(f"{file.name} cannot be read, and is left out")
            continue
        for key, measured in coders.items() if isinstance(coders, dict) else ():
            kind, _, layer = key.partition("/")
            member = Member(kind == FLOAT_TWIN, layer or None)
            for measure in measures:
                if isinstance(measured, dict) and measure in measured:
                    points = found.setdefault(measure, {}).setdefault(member, {})
                    points[int(number[1])] = _number(measured[measure])
    return found
