"""Which latents outlive quantization, and which have no counterpart in another coder.

Shapes: F latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsae_report import words
from qsae_report.neighbours import Counterparts
from qsae_report.subject import Evaluation, Subject

EVALUATION = "quantization-error"
SURVIVED, DAMAGED = 0.9, 0.5
"""Borders of classes of r, where the evaluation's options do not say them."""
ALIKE = 0.5
"""Cosine below which atoms of two coders are no counterparts."""
CLASSES = (
    ("survived", "survived_share", "r from {survived:g}"),
    ("blurred", "blurred_share", "r from {damaged:g} to {survived:g}"),
    ("damaged", "damaged_share", "r below {damaged:g}"),
    ("lost", "lost_share", "never fires, or always with one value"),
)
"""What becomes of a latent, the evaluation's share of them, and what that means."""
SILENT = "never fires in the quantized coder"
Table = dict[str, Any]


class Class(NamedTuple):
    """What became of some latents."""

    name: str
    share: float
    words: str
    """The share, as people read it."""
    meaning: str


@dataclass(frozen=True)
class Survival:
    """What the view ``survival`` shows.

    Attributes:
        classes: of the judged latents.
        facts: sentences.
        r: of every latent, NaN where it is not judged; empty without that evaluation.
        survived, damaged: borders of its classes.
        tables: name -> ``columns``, ``rows``, ``total``.
        cosines: name of a compared coder -> cosine of each latent's counterpart.
    """

    classes: Sequence[Class] = ()
    facts: Sequence[str] = ()
    r: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    survived: float = SURVIVED
    damaged: float = DAMAGED
    tables: Mapping[str, Table] = field(default_factory=dict)
    cosines: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.classes or self.tables)


def survival(subject: Subject, beside: Mapping[str, Counterparts]) -> Survival:
    """From the evaluation ``quantization-error``, and from the atoms of a compared coder."""
    tables: dict[str, Table] = {}
    stored = subject.coder.evaluations.get(EVALUATION)
    options = {} if stored is None else stored.about.get("options") or {}
    damaged = options.get("damaged", DAMAGED)
    survived, least = options.get("survived", SURVIVED), options.get("least_firings", 1)
    classes = (
        [] if stored is None or stored.result is None else _classes(stored.result.values, survived, damaged)
    )
    facts, r = _of_quantization(stored, damaged, least, tables)
    cosines = {}
    if subject.compared is not None and subject.compared.name in beside:
        found = beside[subject.compared.name]
        cosines[subject.compared.name] = found.cosines
        facts += _of_comparison(subject.compared.name, found, tables)
    return Survival(classes, facts, r, survived, damaged, tables, cosines)


def _classes(values: Mapping[str, float | None], survived: float, damaged: float) -> list[Class]:
    found = []
    for name, key, meaning in CLASSES:
        share = values.get(key)
        if share is not None:
            said = meaning.format(survived=survived, damaged=damaged)
            found.append(Class(name, share, words.percent(share), said))
    return found


def _of_quantization(
    stored: Evaluation | None, damaged: float, least: float, tables: dict[str, Table]
) -> tuple[list[str], NDArray[np.float32]]:
    none = np.zeros(0, dtype=np.float32)
    if stored is None or stored.result is None:
        return [], none
    judged, per_latent = stored.result.values.get("judged_latents"), stored.result.per_latent
    facts = []
    if judged is not None:
        facts.append(
            f"{words.number(judged)} latents are judged: those that fire {least:g} times or more in full "
            "precision."
        )
    if not {"r", "firings", "firings_quantized"} <= per_latent.keys():
        return facts, none
    r, before, after = (per_latent[name].numpy() for name in ("r", "firings", "firings_quantized"))
    tables["died"] = died = _died(r, before, after, damaged, least)
    n_silent = sum(row[1] == SILENT for row in died["rows"])
    facts.append(
        f"Of these, {words.number(n_silent)} never fire in the quantized coder, and "
        f"{words.number(died['total'] - n_silent)} fire there and are damaged."
    )
    return facts, r


def _died(r: NDArray[Any], before: NDArray[Any], after: NDArray[Any], damaged: float, least: float) -> Table:
    """Latents that fire in full precision, and here never, always alike, or at other tokens: in this order,
    and of each kind those first that fire most often there."""
    judged, silent = before >= least, after == 0
    constant = ~silent & np.isnan(r)
    became = [
        (judged & silent, SILENT),
        (judged & constant, "has one value alone"),
        (judged & ~silent & (r < damaged), f"fires here, r below {damaged:g}"),
    ]
    rows = [
        [int(j), what, _cell(r[j]), int(before[j]), int(after[j])]
        for which, what in became
        for j in np.flatnonzero(which)[np.argsort(-before[which], kind="stable")]
    ]
    columns = ["latent", "what became of it", "r", "firings in full precision", "firings here"]
    return {"columns": columns, "rows": rows, "total": len(rows)}


def _of_comparison(name: str, found: Counterparts, tables: dict[str, Table]) -> list[str]:
    tables["only-here"] = _without(found.cosines, found.which, ["latent", "cosine", "most similar there"])
    tables["only-there"] = _without(
        found.back_cosines, found.back, ["number there", "cosine", "most_similar_latent"]
    )
    here, there = (len(tables[key]["rows"]) for key in ("only-here", "only-there"))
    return [
        f"{words.number(here)} of {words.number(len(found.which))} latents have no counterpart in {name}, "
        f"and {words.number(there)} of its {words.number(len(found.back))} have none here: the most similar "
        f"atom has a cosine below {ALIKE:g}."
    ]


def _without(cosines: NDArray[Any], which: NDArray[Any], columns: list[str]) -> Table:
    """Rows without a counterpart, the least similar first."""
    alone = np.flatnonzero(cosines < ALIKE)
    order = alone[np.argsort(cosines[alone], kind="stable")]
    rows = [[int(j), _cell(cosines[j]), int(which[j])] for j in order]
    return {"columns": columns, "rows": rows, "total": len(rows)}


def _cell(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
