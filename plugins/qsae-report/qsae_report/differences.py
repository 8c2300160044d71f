"""Where numbers that stand side by side were measured otherwise, in words. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qsae_report.subject import Coder, Evaluation, Subject

N_TOKENS = "n_tokens"
CADENCE = "every"
"""An option that says when an evaluation runs, and not what it measures."""


def of_evaluation(subject: Subject, own: Evaluation, other: Coder, theirs: Evaluation) -> str | None:
    """How an evaluation of another coder was measured otherwise than the report's: ``8,192 tokens, here
    32,885``; None where nothing that is stored says so."""
    said = [
        *_otherwise("evaluation", own.name, theirs.name),
        *_otherwise("version", own.about.get("version"), theirs.about.get("version")),
        *_tokens(_n_tokens(own), _n_tokens(theirs)),
        *_data(_measured(own), _measured(theirs), subject.coder, other),
        *_options(own.about.get("options") or {}, theirs.about.get("options") or {}),
    ]
    return "; ".join(said) or None


def of_samples(subject: Subject, other: Coder) -> str | None:
    """The same of samples; None also where one of the two has none."""
    own, theirs = subject.coder.samples, other.samples
    if own is None or theirs is None:
        return None
    said = [
        *_tokens(own.n_tokens, theirs.n_tokens),
        *_data(own.about.get("measured"), theirs.about.get("measured"), subject.coder, other),
    ]
    return "; ".join(said) or None


def _n_tokens(stored: Evaluation) -> float | None:
    """Tokens that were measured; where that is not said, those that were asked for."""
    counted = None if stored.result is None else stored.result.values.get(N_TOKENS)
    asked: float | None = stored.about.get(N_TOKENS)
    return asked if counted is None else counted


def _measured(stored: Evaluation) -> str | None:
    found: str | None = (stored.about.get("measured") or {}).get("what")
    return found


def _otherwise(what: str, here: Any, there: Any) -> Iterator[str]:
    if here is not None and there is not None and here != there:
        yield f"{what} {there}, here {here}"


def _tokens(here: float | None, there: float | None) -> Iterator[str]:
    if here is not None and there is not None and here != there:
        yield f"{there:,.0f} tokens, here {here:,.0f}"


def _data(here: str | None, there: str | None, own: Coder, other: Coder) -> Iterator[str]:
    """What is called alike is not the same where other data was held out of training."""
    if here is not None and there is not None and here != there:
        yield f"{there}, here {here}"
    elif own.held_out is not None and other.held_out is not None and own.held_out != other.held_out:
        yield "other held-out data"


def _options(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(here.keys() & there.keys() - {CADENCE}):
        if here[name] != there[name]:
            yield f"{name} {there[name]}, here {here[name]}"
