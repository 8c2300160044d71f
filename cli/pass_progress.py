"""Shows how far an evaluation is: a live bar on a terminal, plain lines elsewhere, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qsae_core.evaluation.watch import Subject, Watch

LINE_SECONDS = 10.0
"""How often a line says, where there is no terminal, how far it is."""
LONG_SECONDS = 2.0
"""From where it is said how long an evaluation took for what follows from all that was read."""


class EvaluationProgress(Watch):
    """How far an evaluation's passes over the data are, and what takes long behind them.

    Args:
        what: stands before each line, where several coders are evaluated: ``float twin``.
        begins: is told what is evaluated on what; what it raises ends the evaluation.
    """

    def __init__(self, what: str = "", begins: Callable[[Subject], None] | None = None) -> None:
        self._before = f"{what}: " if what else ""
        self._begins = begins
        self._bar = _bar() if sys.stderr.isatty() else None
        self._task: TaskID | None = None
        self._started = self._said = time.monotonic()

    def __enter__(self) -> EvaluationProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hide()

    def begins(self, subject: Subject) -> None:
        """Say what is evaluated on what."""
        if self._begins is not None:
            self._begins(subject)

    def read(self, number: int, names: Sequence[str], seen: int, wanted: int) -> None:
        """So many tokens of a pass are read. Whole contexts hold a few more than were wanted: how many these
        are is not known before the end."""
        if not seen:
            self._start(f"pass {number}, for {', '.join(names)}")
            self._show(f"pass {number}", wanted)
        self._say(f"pass {number}", min(seen, wanted), wanted, f"{min(seen / wanted, 1):.0%}")

    def has_read(self, number: int, seen: int) -> None:
        """A pass is over."""
        self._hide()
        self._line(f"pass {number}: {seen:,} tokens in {self._seconds():.1f} s")

    def works(self, name: str, done: int, total: int | None) -> None:
        """So many steps of what follows are done."""
        if total is None:
            self._start()
            self._show(name, None)
        else:
            self._say(name, done, total, f"{done:,} of {total:,}")

    def has_worked(self, name: str) -> None:
        """What an evaluation makes of what it has seen is there."""
        self._hide()
        if self._seconds() >= LONG_SECONDS:
            self._line(f"{name}: what follows from it took {self._seconds():.1f} s")

    def _start(self, line: str | None = None) -> None:
        self._started = self._said = time.monotonic()
        if line is not None:
            self._line(line)

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _line(self, text: str) -> None:
        print(self._before + text, file=sys.stderr, flush=True)

    def _say(self, what: str, done: int, total: int, how_far: str) -> None:
        """Move the bar; or print a line, if the last one is some time ago."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif done and self._bar is None and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            left = self._seconds() * (total - done) / done
            self._line(f"{what}: {how_far}, {left:.0f} s left")

    def _show(self, what: str, total: int | None) -> None:
        if self._bar is not None:
            self._task = self._bar.add_task(self._before + what, total=total)
            self._bar.start()

    def _hide(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )
