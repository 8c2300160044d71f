"""One evaluation's own fault is its own: the others go on, and what they found is kept."""

from __future__ import annotations

import pathlib
import traceback
from collections.abc import Callable
from typing import TypeVar

from qsae_core.contracts.evaluation import Accumulator, Result
from qsae_core.contracts.metric import Observation
from qsae_core.errors import QsaeError

Given = TypeVar("Given")


class Guarded(Accumulator):
    """Calls an accumulator until an error comes out of it, and never again.

    A QsaeError at its start is the user's to mend before anything was measured, and goes through.

    Args:
        start: makes the accumulator.
    """

    def __init__(self, start: Callable[[], Accumulator]) -> None:
        self.fault: str | None = None
        """What came out of it, and where; None: nothing did."""
        self.inner = self._tried(start, starts=True)
        self.n_tokens = 1 if self.inner is None else self.inner.n_tokens
        self.documents: set[int] = set()
        """Numbers of those that it has seen something of, where they are known."""

    def update(self, observation: Observation) -> None:
        """Take one batch into account."""
        inner = self.inner
        if inner is not None and self.fault is None:
            self._tried(lambda: inner.update(observation))
            if observation.origin is not None:
                self.documents.update(observation.origin.document.unique().tolist())

    def merge(self, other: Guarded) -> None:
        """Take into account what another one has seen."""
        inner, its = self.inner, other.inner
        self.documents |= other.documents
        self.fault = self.fault or other.fault
        if inner is not None and its is not None and self.fault is None:
            self._tried(lambda: inner.merge(its))

    def next_pass(self) -> Guarded | None:
        """What goes over the data once more."""
        following = None if self.inner is None or self.fault else self._tried(self.inner.next_pass)
        if following is None:
            return None
        again = Guarded(lambda: following)
        again.documents = self.documents
        return again

    @property
    def may_go_on(self) -> bool:
        """Whether there may be such."""
        return self.inner is not None and self.inner.may_go_on

    @property
    def n_documents(self) -> int | None:
        """How many documents it has seen something of; None where they are not known."""
        return len(self.documents) if self.documents and min(self.documents) >= 0 else None

    def result(self) -> Result:
        """What it found; nothing where it failed, now or before."""
        found = None if self.inner is None or self.fault else self._tried(self.inner.result)
        return Result() if found is None else found

    def _tried(self, call: Callable[[], Given], *, starts: bool = False) -> Given | None:
        try:
            return call()
        except QsaeError as error:
            if starts:
                raise
            self.fault = " ".join(str(error).split())
            return None
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{pathlib.Path(last.filename).name}:{last.lineno}"
            said = " ".join(str(error).split())
            self.fault = f"it failed ({type(error).__name__}: {said}; {place})"
            return None
