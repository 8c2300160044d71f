"""The numbers of the overview: one card each, with those of the twin and of a compared coder beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from qsae_report import words
from qsae_report.subject import Coder, Subject

Form = Callable[[float | None], str]


class Card(NamedTuple):
    """A number that says how good a coder is, or how large."""

    title: str
    meaning: str
    value: str
    beside: Sequence[tuple[str, str]]
    """Whose number, and the number."""


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
NOT_SMALLER = 1.05
"""How many times smaller than in float32 a coder is at most for that not to be said."""


def cards(subject: Subject, n_latents: int) -> list[Card]:
    """Every card that there are numbers for."""
    found = [_of(measure, subject) for measure in MEASURES]
    return [card for card in found if card is not None] + _sizes(subject, n_latents)


def _of(measure: Measure, subject: Subject) -> Card | None:
    def value(coder: Coder) -> float | None:
        return coder.value(measure.name, *measure.evaluations)

    own = value(subject.coder)
    if own is None:
        return None
    others = [
        (coder.name, measure.form(value(coder))) for coder in subject.beside if value(coder) is not None
    ]
    for kind in ("baseline", "chance"):
        against = _against(subject.coder, measure, kind)
        if against is not None and measure.form(against) != measure.form(0.0):
            others.append((kind, measure.form(against)))
    return Card(measure.title, measure.meaning, measure.form(own), others)


def _against(coder: Coder, measure: Measure, kind: str) -> float | None:
    for name in measure.evaluations:
        stored = coder.evaluations.get(name)
        if stored is not None and stored.result is not None:
            found: float | None = getattr(stored.result, kind).get(measure.name)
            if found is not None:
                return found
    return None


def _sizes(subject: Subject, n_latents: int) -> list[Card]:
    found = []
    artifact = subject.coder.artifact
    if "bytes" in artifact:
        smaller = artifact.get("times_smaller")
        others = [(c.name, words.size(c.artifact["bytes"])) for c in subject.beside if "bytes" in c.artifact]
        if smaller is not None and smaller > NOT_SMALLER:
            others.insert(0, ("smaller than float32", f"{smaller:.1f}\N{MULTIPLICATION SIGN}"))
        found.append(Card("Size", "bytes of the stored coder", words.size(artifact["bytes"]), others))
    bits = {name: b for name, b in artifact.get("bits_per_weight", {}).items() if b is not None}
    if bits:
        names = {"W_dec": "decoder", "W_enc": "encoder"}
        first = "W_dec" if "W_dec" in bits else next(iter(bits))
        rest = [(names.get(name, name), f"{b:.3g}") for name, b in bits.items() if name != first]
        its = [(c.name, c.artifact.get("bits_per_weight", {}).get(first)) for c in subject.beside]
        rest += [(name, f"{b:.3g}") for name, b in its if b is not None]
        title = f"Bits per weight, {names.get(first, first)}"
        found.append(Card(title, "stored bits, scales included", f"{bits[first]:.3g}", rest))
    found.append(Card("Latents", "size of the dictionary", words.number(n_latents), []))
    if "tokens" in subject.trained:
        steps = subject.trained.get("steps")
        beside = [] if not steps else [("steps", words.number(steps))]
        what = "Trained on" if steps else "Calibrated on"
        found.append(Card(what, "tokens", words.number(subject.trained["tokens"]), beside))
    return found
