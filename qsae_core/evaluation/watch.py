"""What an evaluation tells whoever watches it. Imports no torch."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple


class Subject(NamedTuple):
    """What is evaluated on what, as it is known before the first pass."""

    folder: pathlib.Path
    """Of the coder, or of several."""
    n_latents: int
    level: int | None
    model: str
    layer: str
    measured: dict[str, Any]
    """``MeasuredPart.entry``."""
    n_tokens: int
    """That are asked for."""
    in_contexts: bool
    """Whether they are read in whole contexts: the fewest that hold so many."""
    evaluations: tuple[str, ...]
    is_other_data: bool = False
    """``MeasuredPart.is_other``."""


class Watch:
    """Is told how far an evaluation is, and does nothing about it; who shows it overrides what it shows. Used
    in a ``with`` block, at whose end nothing of it is shown any more."""

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to put away."""

    def begins(self, subject: Subject) -> None:
        """The coder and the data are there; nothing is measured yet. May raise, and nothing is."""

    def read(self, number: int, names: Sequence[str], seen: int, wanted: int) -> None:
        """So many tokens of a pass, counted from 1, are read for these evaluations; none when it begins."""

    def has_read(self, number: int, seen: int) -> None:
        """A pass is over, after so many tokens."""

    def works(self, name: str, done: int, total: int | None) -> None:
        """So many steps of what an evaluation makes of all that it has seen are done; None: it does not say
        of how many."""

    def has_worked(self, name: str) -> None:
        """That is done."""
