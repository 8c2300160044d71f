"""The numbers of the overview: one card each, with those of the twin and of a compared coder beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from qsae_report import words
from qsae_report.differences import of_evaluation
from qsae_report.subject import Coder, Subject

Form = Callable[[float | None], str]


class Card(NamedTuple):
    """A number that says how good a coder is, or how large."""

    title: str
    meaning: str
    value: str
    beside: Sequence[tuple[str, str]]
    """Whose number, and the number."""
    notes: Sequence[str] = ()
    """Whose number was measured otherwise, and how."""


class Measure(NamedTuple):
    """A value of an evaluation that has a card."""

    title: str
    meaning: str
    name: str
    evaluations: tuple[str, ...]
    form: Form


MEASURES = (
    Measure(
        "FVU", "fraction of variance unexplained; 0 is perfect", "fvu", ("reconstruction",), words.number
    ),
    Measure(
        "L0", "latents that fire on a token, on average", "l0", ("reconstruction", "sparsity"), words.number
    ),
    Measure(
        "Dead",
        "share of latents that never fire",
        "dead_fraction",
        ("reconstruction", "sparsity"),
        words.percent,
    ),
    Measure(
        "CE recovered",
        "share of the loss from zeroing these vectors that the reconstruction avoids",
        "ce_recovered",
        ("loss-recovered",),
        words.percent,
    ),
    Measure(
        "Bits per token",
        "of a token's code",
        "bits_per_token",
        ("reconstruction", "code-length"),
        words.number,
    ),
)
"""Cards of values, in the order of the page; those that no evaluation has are left out."""
MATRICES = {"W_dec": "decoder", "W_enc": "encoder"}
NOT_SMALLER = 1.05
"""How many times smaller than in float32 a coder is at most for that not to be said."""


def cards(subject: Subject, n_latents: int, others: Mapping[str, int] | None = None) -> list[Card]:
    """Every card that there are numbers for.

    Args:
        others: name of a coder beside it -> its latents.
    """
    found = [_of(measure, subject) for measure in MEASURES]
    sizes = [*_size(subject), *_bits(subject), _latents(subject, n_latents, others or {}), *_tokens(subject)]
    return [card for card in found if card is not None] + sizes


def _of(measure: Measure, subject: Subject) -> Card | None:
    own = subject.coder.holding(measure.name, *measure.evaluations)
    if own is None or own.result is None:
        return None
    beside, notes = [], []
    for coder in subject.beside:
        theirs = coder.holding(measure.name, *measure.evaluations)
        if theirs is None or theirs.result is None:
            continue
        beside.append((coder.name, measure.form(theirs.result.values[measure.name])))
        differs = of_evaluation(subject, own, coder, theirs)
        notes += [] if differs is None else [f"{coder.name}: {differs}"]
    for kind in ("baseline", "chance"):
        against = _against(subject.coder, measure, kind)
        if against is not None and measure.form(against) != measure.form(0.0):
            beside.append((kind, measure.form(against)))
    value = measure.form(own.result.values[measure.name])
    return Card(measure.title, measure.meaning, value, beside, notes)


def _against(coder: Coder, measure: Measure, kind: str) -> float | None:
    """Of the first evaluation that has it, which need not be the one that the value is of."""
    for name in measure.evaluations:
        stored = coder.evaluations.get(name)
        if stored is not None and stored.result is not None:
            found: float | None = getattr(stored.result, kind).get(measure.name)
            if found is not None:
                return found
    return None


def _size(subject: Subject) -> Iterator[Card]:
    artifact = subject.coder.artifact
    if "bytes" not in artifact:
        return
    beside = [(c.name, _bytes(c.artifact)) for c in subject.beside if "bytes" in c.artifact]
    if times := _smaller(artifact):
        beside.insert(0, ("smaller than float32", times))
    yield Card("Size", "bytes of the stored coder", words.size(artifact["bytes"]), beside)


def _bytes(artifact: Mapping[str, Any]) -> str:
    times = _smaller(artifact)
    return words.size(artifact["bytes"]) + (f" ({times})" if times else "")


def _smaller(artifact: Mapping[str, Any]) -> str | None:
    times = artifact.get("times_smaller")
    return None if times is None or times <= NOT_SMALLER else f"{times:.1f}\N{MULTIPLICATION SIGN}"


def _bits(subject: Subject) -> Iterator[Card]:
    """A card for each stored matrix, the decoder's first."""
    own = _bits_of(subject.coder)
    for key in sorted(own, key=lambda key: key != "W_dec"):
        beside = [(c.name, f"{_bits_of(c)[key]:.3g}") for c in subject.beside if key in _bits_of(c)]
        title = f"Bits per weight, {MATRICES.get(key, key)}"
        yield Card(title, "stored bits, scales included", f"{own[key]:.3g}", beside)


def _bits_of(coder: Coder) -> dict[str, float]:
    return {key: bits for key, bits in coder.artifact.get("bits_per_weight", {}).items() if bits is not None}


def _latents(subject: Subject, n_latents: int, others: Mapping[str, int]) -> Card:
    beside = [(c.name, words.number(others[c.name])) for c in subject.beside if c.name in others]
    return Card("Latents", "size of the dictionary", words.number(n_latents), beside)


def _tokens(subject: Subject) -> Iterator[Card]:
    trained = subject.coder.trained
    if "tokens" not in trained:
        return
    steps = trained.get("steps")
    beside = [("steps", words.number(steps))] if steps else []
    beside += [(c.name, words.number(c.trained["tokens"])) for c in subject.beside if "tokens" in c.trained]
    title = "Trained on" if steps else "Calibrated on"
    yield Card(title, "tokens", words.number(trained["tokens"]), beside)
