"""Shows how far a run or an evaluation is: a live bar on a terminal, plain lines elsewhere, on stderr."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qsae_core.results.run import Run

PLAIN_LINES = 20
"""About how many lines a run prints where there is no terminal."""
PASS_LINE_SECONDS = 10.0
"""How often an evaluation says there how far it is."""


def make_watcher() -> PlainWatcher | LiveWatcher:
    """The watcher that fits stderr."""
    return LiveWatcher() if sys.stderr.isatty() else PlainWatcher()


def describe_values(values: Mapping[str, float | None]) -> str:
    """``loss 103.2  fvu 0.214  l0 32.0  dead 1.2%  6,120 tok/s``; what is not there is left out."""
    shown = []
    for name, form in (("loss", "{:.4g}"), ("fvu", "{:.4f}"), ("l0", "{:.1f}"), ("dead", "{:.1%}")):
        shown += _ranged(values, "", name, name, form)
    shown += _ranged(values, "float_twin/", "fvu", "float twin's fvu", "{:.4f}")
    speed = values.get("tokens_per_second")
    if speed is not None:
        shown.append(f"{speed:,.0f} tok/s")
    return "  ".join(shown)


def _ranged(values: Mapping[str, float | None], kind: str, name: str, label: str, form: str) -> list[str]:
    """A value as it is shown; of a coder for each layer, from the least of theirs to the largest."""
    found = [values.get(f"{kind}{name}")]
    if found == [None]:
        pattern = re.compile(rf"{kind}(?!float_twin/)[^/]+/{name}")
        found = [value for key, value in values.items() if pattern.fullmatch(key)]
    known = [value for value in found if value is not None]
    if not known:
        return []
    ends = dict.fromkeys(form.format(end) for end in (min(known), max(known)))
    return [f"{label} {' to '.join(ends)}"]


def describe_measurement(step: int, values: Mapping[str, Mapping[str, Any]]) -> str:
    """One line of held-out metrics."""
    parts = []
    for coder, metrics in values.items():
        kind, _, layer = coder.partition("/")
        label = "held out" if kind == "coder" else f"held out, {kind.replace('_', ' ')}"
        parts.append(f"{label}{f', layer {layer}' if layer else ''}: {describe_values(metrics)}")
    return f"step {step}: " + "; ".join(parts)


class PlainWatcher:
    """Plain lines, some twenty a run."""

    def __init__(self) -> None:
        self.steps = 1
        self.first = self.next_line = 0
        self.started = time.monotonic()

    def message(self, text: str) -> None:
        """Print a sentence."""
        print(text, file=sys.stderr, flush=True)

    def start(self, run: Run, first_step: int, steps: int) -> None:
        """Say where results go."""
        self.steps, self.first, self.started = steps, first_step, time.monotonic()
        self.next_line = first_step
        self.message(f"training for {steps - first_step} steps; results go to {run.path}")

    def logged(self, step: int, values: Mapping[str, float | None]) -> None:
        """Print a line every twentieth of the run."""
        if step < self.next_line and step < self.steps:
            return
        self.next_line = step + max(1, self.steps // PLAIN_LINES)
        per_step = (time.monotonic() - self.started) / max(1, step - self.first)
        left = (self.steps - step) * per_step
        self.message(f"step {step}/{self.steps}  {describe_values(values)}  {left:.0f} s left")

    def measured(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Print the held-out metrics."""
        self.message(describe_measurement(step, values))

    def stop(self) -> None:
        """Nothing to put away."""


class LiveWatcher:
    """A rich progress bar with speed, time left and the last numbers."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress: Progress | None = None
        self.task: TaskID | None = None

    def message(self, text: str) -> None:
        """Print a sentence above the bar."""
        self.console.print(text)

    def start(self, run: Run, first_step: int, steps: int) -> None:
        """Show the bar."""
        self.message(f"results go to {run.path}")
        self.progress = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
        )
        self.task = self.progress.add_task("train", total=steps, completed=first_step, numbers="")
        self.progress.start()

    def logged(self, step: int, values: Mapping[str, float | None]) -> None:
        """Move the bar."""
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=step, numbers=describe_values(values))

    def measured(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Print the held-out metrics above the bar."""
        self.message(describe_measurement(step, values))

    def stop(self) -> None:
        """Leave the bar as it is and give the terminal back."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


class PassProgress:
    """How far an evaluation's passes over the data are: a bar, or elsewhere a line every now and then.

    Args:
        what: is evaluated; stands before the numbers.
    """

    def __init__(self, what: str = "evaluating") -> None:
        self.what = what
        self.bar = _pass_bar() if sys.stderr.isatty() else None
        self.tasks: dict[int, TaskID] = {}
        self.said = time.monotonic()

    def __enter__(self) -> PassProgress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, number: int, seen: int, wanted: int) -> None:
        """So many tokens of a pass, counted from 1, are read."""
        done = min(seen, wanted)
        if self.bar is not None:
            if number not in self.tasks:
                self.tasks[number] = self.bar.add_task(f"{self.what}, pass {number}", total=wanted)
            self.bar.update(self.tasks[number], completed=done)
        elif time.monotonic() - self.said >= PASS_LINE_SECONDS:
            self.said = time.monotonic()
            print(f"{self.what}, pass {number}: {done:,} of {wanted:,} tokens", file=sys.stderr, flush=True)


def _pass_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,} of {task.total:,} tokens"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )
