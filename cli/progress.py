"""Shows how far a run is: a live bar on a terminal, plain lines elsewhere, on stderr."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qsae_cli.pass_progress import EvaluationProgress
from qsae_core.config.settings import TrainConfig
from qsae_core.evaluation.watch import Watch
from qsae_core.kinds import SLOTS
from qsae_core.results.run import Run
from qsae_core.results.words import quantizers_of

PLAIN_LINES = 20
"""About how many lines a run prints where there is no terminal."""


def make_watcher() -> PlainWatcher | LiveWatcher:
    """The watcher that fits stderr."""
    return LiveWatcher() if sys.stderr.isatty() else PlainWatcher()


class Quantization(NamedTuple):
    """Of a run whose coder is quantized."""

    from_step: int
    """Steps (from 1) up to this one are made with float weights: ``train.quantize_after``."""


def quantization(run: Run) -> Quantization | None:
    """What a run's record says of it; None where nothing is quantized."""
    record = run.record()
    if all(use == SLOTS[slot].default for slot, use in quantizers_of(record).items()):
        return None
    train = TrainConfig.model_validate(record["train"])
    return Quantization(math.ceil(train.quantize_after * train.n_steps))


def is_floating(found: Quantization | None, step: int) -> bool:
    """Whether a step (from 1) was made with float weights, which are quantized later."""
    return found is not None and step <= found.from_step


def describe_values(values: Mapping[str, float | None], *, floating: bool = False) -> str:
    """``loss 103.2  fvu 0.214  l0 32.0  dead 1.2%  6,120 tok/s``; what is not there is left out.

    Args:
        floating: whether these are of float weights that will be quantized.
    """
    shown = []
    before = " before quantization" if floating else ""
    for name, form in (("loss", "{:.4g}"), ("fvu", "{:.4f}"), ("l0", "{:.1f}"), ("dead", "{:.1%}")):
        shown += _ranged(values, "", name, f"{name}{before if name == 'fvu' else ''}", form)
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


def describe_measurement(
    step: int, values: Mapping[str, Mapping[str, Any]], *, quantized: bool = False
) -> str:
    """One line of held-out metrics.

    Args:
        quantized: whether the coder is: it is measured so even while steps still use its float weights.
    """
    own = "held out, quantized" if quantized else "held out"
    parts = []
    for coder, metrics in values.items():
        kind, _, layer = coder.partition("/")
        label = own if kind == "coder" else f"held out, {kind.replace('_', ' ')}"
        parts.append(f"{label}{f', layer {layer}' if layer else ''}: {describe_values(metrics)}")
    return f"step {step}: " + "; ".join(parts)


class PlainWatcher:
    """Plain lines, some twenty a run."""

    def __init__(self) -> None:
        self.steps = 1
        self.first = self.next_line = 0
        self.quantization: Quantization | None = None
        self.started = time.monotonic()

    def message(self, text: str) -> None:
        """Print a sentence."""
        print(text, file=sys.stderr, flush=True)

    def start(self, run: Run, first_step: int, steps: int) -> None:
        """Say where results go."""
        self.steps, self.first, self.started = steps, first_step, time.monotonic()
        self.next_line = first_step
        self.quantization = quantization(run)
        self.message(f"training for {steps - first_step} steps; results go to {run.path}")

    def logged(self, step: int, values: Mapping[str, float | None]) -> None:
        """Print a line every twentieth of the run."""
        if step < self.next_line and step < self.steps:
            return
        self.next_line = step + max(1, self.steps // PLAIN_LINES)
        seconds = time.monotonic() - self.started
        left = f"{(self.steps - step) * seconds / max(1, step - self.first):.0f} s left"
        ahead = left if step < self.steps else f"trained in {seconds:.0f} s; what follows is the evaluation"
        shown = describe_values(values, floating=is_floating(self.quantization, step))
        self.message(f"step {step}/{self.steps}  {shown}  {ahead}")

    def measured(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Print the held-out metrics."""
        self.message(describe_measurement(step, values, quantized=self.quantization is not None))

    def evaluation(self, what: str) -> Watch:
        """Shows how far its passes are."""
        return EvaluationProgress(what)

    def stop(self) -> None:
        """Nothing to put away."""


class LiveWatcher:
    """A rich progress bar with speed, time left and the last numbers."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.quantization: Quantization | None = None

    def message(self, text: str) -> None:
        """Print a sentence above the bar."""
        self.console.print(text)

    def start(self, run: Run, first_step: int, steps: int) -> None:
        """Show the bar."""
        self.message(f"results go to {run.path}")
        self.quantization = quantization(run)
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
            floating = is_floating(self.quantization, step)
            self.progress.update(
                self.task, completed=step, numbers=describe_values(values, floating=floating)
            )

    def measured(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Print the held-out metrics above the bar."""
        self.message(describe_measurement(step, values, quantized=self.quantization is not None))

    def evaluation(self, what: str) -> Watch:
        """Shows how far its passes are."""
        return EvaluationProgress(what)

    def stop(self) -> None:
        """Leave the bar as it is and give the terminal back."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
