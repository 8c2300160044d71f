"""Tracker: where a run's numbers are sent."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

from qsae_core.component import ComponentConfig
from qsae_core.results.run import Run


class Tracker(abc.ABC):
    """Sends a run's numbers somewhere. Built as ``Class(config)``, before the run has a folder: so what is
    missing (a library, a key) stops it there. Called by the first process of a run, and by no other."""

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def start(self, run: Run) -> None:
        """The run starts or resumes."""

    @abc.abstractmethod
    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Numbers of one logged step; steps rise."""

    def measured(self, step: int, metrics: Mapping[str, Mapping[str, Any]]) -> None:  # noqa: B027
        """Held-out metrics of a step, which is none before the last logged one: ``coder``, ``float_twin``,
        ``coder/LAYER`` -> name -> number, or None where it is not defined. Nothing is done by default."""

    def finish(self) -> None:  # noqa: B027 (nothing to close in most trackers)
        """The run is over; called once for each ``start``. It is finished, and ``metrics.json`` says what it
        came to; or it was interrupted, or has failed: ``status`` of its record says which."""
