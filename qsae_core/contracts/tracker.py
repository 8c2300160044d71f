"""Tracker: where a run's numbers are sent."""

from __future__ import annotations

import abc
from collections.abc import Mapping

from qsae_core.component import ComponentConfig
from qsae_core.results.run import Run


class Tracker(abc.ABC):
    """Sends a run's numbers somewhere. Built as ``Class(config)``; methods mirror the life-cycle hooks."""

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def start(self, run: Run) -> None:
        """The run starts or resumes."""

    @abc.abstractmethod
    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Numbers of one logged step."""

    def finish(self) -> None:  # noqa: B027 (nothing to close in most trackers)
        """The run has ended."""
