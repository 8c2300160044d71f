"""Judge: who explains a latent, and says from an explanation in which windows it fires. Imports no torch."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from qsae_core.errors import QsaeError


class Window(NamedTuple):
    """Consecutive tokens of one document."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    """The text of each token; joined, the text of the window. That of a token which begins a character and
    does not end it is empty."""
    document: int
    """Of the held-out data; where that is not known, ``-1 - context``."""


class Example(NamedTuple):
    """A window in which a latent fires, as it is shown to who explains."""

    window: Window
    activations: tuple[float, ...]
    """The latent's at each token; 0 where it is silent."""


class JudgeError(QsaeError):
    """A judge that cannot be had, or does not answer."""


class Judge(abc.ABC):
    """Explains latents and detects them. What it detects follows from the explanation's words alone, so that
    an explanation can be stored, and tried on another latent's windows."""

    graded: ClassVar[bool] = False
    """Whether ``detect`` gives probabilities between 0 and 1, by which windows can be ranked."""
    name: str
    """In results: what judged (``rule``, a model)."""
    unreadable: str | None = None
    """The first answer that could not be read, as it came; None: there was none."""

    @abc.abstractmethod
    def explain(self, examples: Sequence[Example]) -> str:
        """What the latent is about, in words, on one line; empty where nothing can be made of the answer.

        Args:
            examples: the strongest first.

        Raises:
            JudgeError: if there is no answer.
        """

    @abc.abstractmethod
    def detect(self, explanation: str, windows: Sequence[Window]) -> list[float | None]:
        """For each window the probability that a latent with this explanation fires in it; None where nothing
        can be made of the answer.

        Raises:
            JudgeError: if there is no answer.
        """
