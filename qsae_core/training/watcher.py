"""What a training run tells whoever started it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from qsae_core.evaluation.watch import Watch
from qsae_core.results.run import Run


class Watcher(Protocol):
    """Shows a run to whoever started it; the command line has one for terminals and one for plain lines."""

    def message(self, text: str) -> None:
        """A sentence about what happens now."""

    def start(self, run: Run, first_step: int, steps: int) -> None:
        """Training begins."""

    def logged(self, step: int, values: Mapping[str, float | None]) -> None:
        """Numbers of a logged step."""

    def measured(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Held-out metrics: coder -> name -> value."""

    def stop(self) -> None:
        """Training has ended, one way or another."""

    def evaluation(self, what: str) -> Watch:
        """What is told how far the evaluation of a trained coder is.

        Args:
            what: which coder that is, where there are several; else empty.
        """
        return Watch()


class Unwatched:
    """Shows nothing: of several processes that train together, the first one shows what all do."""

    def message(self, text: str) -> None:
        """Nothing."""

    def start(self, run: Run, first_step: int, steps: int) -> None:
        """Nothing."""

    def logged(self, step: int, values: Mapping[str, float | None]) -> None:
        """Nothing."""

    def measured(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""

    def evaluation(self, what: str) -> Watch:
        """One that shows nothing."""
        return Watch()
