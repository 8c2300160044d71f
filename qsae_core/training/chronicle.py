"""What a run writes and shows while it trains: by the first of its processes, and by no other."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from qsae_core.compose.compose import compose_trackers
from qsae_core.config.run import RunConfig
from qsae_core.contracts.tracker import Tracker
from qsae_core.results.run import Run
from qsae_core.training.trainer import Trainer
from qsae_core.training.watcher import Watcher

if TYPE_CHECKING:
    from qsae_core.plugins.records import Plugins


class Chronicle:
    """Log lines, measurements and decisions about screens, to files, trackers, hooks and whoever watches.

    As a context it ends with the run, however that ends: trackers that were begun are finished.

    Args:
        writes: whether this process does so; in another nothing happens.
    """

    def __init__(self, config: RunConfig, plugins: Plugins, watcher: Watcher, *, writes: bool) -> None:
        self.plugins, self.watcher, self.writes = plugins, watcher, writes
        self.trackers = list(compose_trackers(config, plugins.registry).values()) if writes else []
        self._begun: list[Tracker] = []

    def __enter__(self) -> Chronicle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish what ``end`` did not come to."""
        while self._begun:
            with contextlib.suppress(Exception):  # what ended the run is what is shown
                self._begun.pop(0).finish()

    def begin(self, run: Run) -> None:
        """Training begins, or goes on."""
        if self.writes:
            self.plugins.hook.qsae_train_start(run=run)
            for tracker in self.trackers:
                tracker.start(run)
                self._begun.append(tracker)

    def log(self, run: Run, step: int, values: Mapping[str, float | None]) -> None:
        """Numbers of a logged step."""
        if self.writes:
            run.append_log(step, values)
            self.watcher.logged(step, values)
            for tracker in self.trackers:
                tracker.log(step, values)
            self.plugins.hook.qsae_step_end(run=run, step=step, metrics=values)

    def measured(self, run: Run, step: int, values: dict[str, Any]) -> None:
        """Held-out metrics of a step: coder -> name -> value."""
        if self.writes:
            run.write_step_metrics(step, values)
            self.watcher.measured(step, values)
            for tracker in self.trackers:
                tracker.measured(step, values)

    def evaluated(self, step: int, values: Mapping[str, Mapping[str, float | None]]) -> None:
        """Scalars that evaluations found after a step: coder -> ``NAME/VALUE`` -> number."""
        if self.writes and values:
            for tracker in self.trackers:
                tracker.measured(step, values)

    def screens(self, run: Run, trainers: Mapping[str, Trainer]) -> None:
        """Say what was decided about screens, and put it on record."""
        for name, trainer in trainers.items():
            new = trainer.screening.news()
            if new and self.writes:
                run.add_screens(name, [decision.record() for decision in new])
            for decision in new:
                if decision.recall is not None:
                    self.watcher.message(f"{name} {decision}")

    def end(self, run: Run) -> None:
        """The run is finished."""
        if self.writes:
            while self._begun:
                self._begun.pop(0).finish()
            self.plugins.hook.qsae_train_end(run=run)
