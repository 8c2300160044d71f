"""Wrong trackers, each made from a right one: a file beside the run's own."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from qsae_core import ComponentSpec
from qsae_core.conformance.reference_parts import PlainConfig
from qsae_core.contracts.tracker import Tracker
from qsae_core.results.run import Run


class RightTracker(Tracker):
    """One line of JSON per step."""

    path: pathlib.Path

    def start(self, run: Run) -> None:
        self.path = run.path / "lines.jsonl"

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")


class NeedsNumbers(RightTracker):
    """Cannot take a value that is not defined."""

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        super().log(step, {name: round(value, 3) for name, value in metrics.items()})  # type: ignore[arg-type]


class NeedsMeasurements(RightTracker):
    """Cannot take a held-out metric that is not defined."""

    def measured(self, step: int, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        for coder, values in metrics.items():
            self.log(step, {f"{coder}/{name}": round(value, 3) for name, value in values.items()})


class ChangesRecord(RightTracker):
    """Writes into the run's own record."""

    def start(self, run: Run) -> None:
        super().start(run)
        run.update_record(tracker="lines")


class FailsToConstruct(RightTracker):
    """Cannot be made."""

    def __init__(self, config: PlainConfig) -> None:
        raise RuntimeError("no")


def tracker(cls: type[Tracker]) -> ComponentSpec:
    return ComponentSpec("tracker", cls.__name__.lower(), PlainConfig, f"{__name__}:{cls.__name__}")


RIGHT = [tracker(RightTracker)]
WRONG = [
    (tracker(NeedsNumbers), "run"),
    (tracker(NeedsMeasurements), "run"),
    (tracker(ChangesRecord), "keeps-record"),
    (tracker(FailsToConstruct), "constructs"),
]
