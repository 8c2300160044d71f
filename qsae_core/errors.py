"""Errors that a user can act on: what is wrong, where, what would be allowed, and the next command."""

from __future__ import annotations

import os
from collections.abc import Sequence


class QsaeError(Exception):
    """A fault in what the user gave: a config, a file, a plugin, a combination of parts.

    The CLI prints it without a traceback and exits with 2. Internal faults use ordinary exceptions.

    Args:
        what: one sentence that says what is wrong, with the offending value in it.
        where: the place: a file, a row, a config key (``my.yaml: sparsity.k``).
        allowed: what would be accepted instead.
        next: a command or an action that gets the user further.
    """

    def __init__(
        self, what: str, *, where: str | None = None, allowed: str | None = None, next: str | None = None
    ) -> None:
        self.what, self.where, self.allowed, self.next = what, where, allowed, next
        super().__init__(what)

    def rename(self, working: os.PathLike[str], final: os.PathLike[str]) -> None:
        """Call a file or folder by the name that the user knows, and not by the one that it has meanwhile."""
        for name in ("what", "where", "allowed", "next"):
            text = getattr(self, name)
            if text is not None:
                setattr(self, name, text.replace(os.fspath(working), os.fspath(final)))

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        lines = [head]
        if self.allowed:
            lines.append(f"  allowed: {self.allowed}")
        if self.next:
            lines.append(f"  next:    {self.next}")
        return "\n".join(lines)


class ConfigError(QsaeError):
    """A key, a value or a combination of parts that the configuration cannot take."""


class OptionsError(ValueError):
    """Raised by a config's validator about several of its options together.

    Args:
        what: what is wrong, with the values.
        allowed: what would be accepted instead.
        exclusive: options of which one alone may be given; the message says where each of them stands.
    """

    def __init__(self, what: str, *, allowed: str, exclusive: Sequence[str] = ()) -> None:
        self.allowed, self.exclusive = allowed, exclusive
        super().__init__(what)


def exclusive(*options: str, allowed: str = "one of them") -> OptionsError:
    """The error for options that are given together and exclude one another."""
    return OptionsError(
        f"{' and '.join(options)} cannot be given together", allowed=allowed, exclusive=options
    )


class PluginError(QsaeError):
    """A plugin that cannot be loaded, or whose component is asked for and cannot be had."""


class DataError(QsaeError):
    """A data file, a text or a language model that cannot be read as asked."""


class ArtifactError(QsaeError):
    """A checkpoint that is truncated, altered, or made by something that is not installed."""


class UnwritableError(QsaeError):
    """A disk that is full, or a place where nothing may be written."""


class EvaluationError(QsaeError):
    """An evaluation that should have come to its end, and did not; what the others found is kept."""


class TrainingError(QsaeError):
    """A run that cannot go on (non-finite loss) or cannot start (a finished run is in the way)."""


class LostError(TrainingError):
    """The end of a process that trains with others, one of which is gone and did not say why."""


class StoppedError(TrainingError):
    """The end of a process that trains with others, one of which ended and says why; it is shown nowhere."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """``"; did you mean 'ternary'?"`` where a known word is close, else the empty string."""
    import difflib

    close = difflib.get_close_matches(str(word), known, n=1)  # from Python anything may come
    return f"; did you mean {close[0]!r}?" if close else ""
