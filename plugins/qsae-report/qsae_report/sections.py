"""Every stored evaluation as a section of the page; nothing here knows any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from qsae_report import words
from qsae_report.differences import of_evaluation
from qsae_report.subject import Coder, Evaluation, Subject

if TYPE_CHECKING:
    from qsae_core.contracts import Result

KINDS = (("chance", "by chance"), ("baseline", "baseline"), ("uncertainty", "± std. error"))
"""Numbers beside values: attribute of a result, heading."""


class Row(NamedTuple):
    """A value's name, and a text for each heading of its section."""

    name: str
    cells: Sequence[str]


class Section(NamedTuple):
    """An evaluation as the page shows it."""

    name: str
    damage: str | None
    headings: Sequence[str]
    rows: Sequence[Row]
    facts: Sequence[tuple[str, str]]
    """What is said about it: version, options, plugin, what was measured."""
    tables: Sequence[tuple[str, int]]
    """Name, and how many rows it has."""
    n_columns: int
    warning: str | None
    reason: str | None
    """Why values are missing."""
    differences: Sequence[str] = ()
    """Which coder beside it was measured otherwise, and how."""


def sections(subject: Subject, n_latents: int) -> list[Section]:
    """A section for every evaluation of the coder."""
    return [_section(stored, subject, n_latents) for stored in subject.coder.evaluations.values()]


def _section(stored: Evaluation, subject: Subject, n_latents: int) -> Section:
    if stored.result is None:
        return Section(stored.name, stored.damage, (), (), (), (), 0, None, None)
    result = stored.result
    kinds = [(key, heading) for key, heading in KINDS if getattr(result, key)]
    beside = [coder for coder in subject.beside if _values(coder, stored.name)]
    rows = [
        Row(
            name,
            [
                words.number(value),
                *(words.number(getattr(result, key).get(name)) for key, _ in kinds),
                *(words.number(other.values.get(name)) for other in stored.baselines.values()),
                *(words.number(_values(coder, stored.name).get(name)) for coder in beside),
            ],
        )
        for name, value in result.values.items()
    ]
    n_columns = sum(len(tensor) == n_latents for tensor in result.per_latent.values())
    return Section(
        stored.name,
        None,
        ["value", *(heading for _, heading in kinds), *stored.baselines, *(coder.name for coder in beside)],
        rows,
        _facts(stored),
        [(name, len(table.rows)) for name, table in result.tables.items()],
        n_columns,
        (stored.about.get("measured") or {}).get("warning"),
        result.reason,
        [
            *(
                f"{coder.name} was measured otherwise: {how}"
                for coder in beside
                if (how := of_evaluation(subject, stored, coder, coder.evaluations[stored.name]))
            ),
            *_baselines_of_other_tokens(result, stored.baselines),
        ],
    )


def _baselines_of_other_tokens(result: Result, baselines: Mapping[str, Result]) -> list[str]:
    own, found = result.values.get("n_tokens"), []
    for name, other in baselines.items():
        theirs = other.values.get("n_tokens")
        if own is not None and theirs is not None and own != theirs:
            counts = f"{words.number(theirs)} tokens, here {words.number(own)}"
            found.append(f"{name} was measured otherwise: {counts}")
    return found


def _values(coder: Coder, evaluation: str) -> dict[str, float | None]:
    stored = coder.evaluations.get(evaluation)
    return dict(stored.result.values) if stored is not None and stored.result is not None else {}


def _facts(stored: Evaluation) -> list[tuple[str, str]]:
    about, found = stored.about, []
    plugin = about.get("plugin") or {}
    if "version" in about:
        found.append(("definition", f"version {about['version']}"))
    if stored.result is not None and stored.result.how is not None:
        found.append(("how", stored.result.how))
    if plugin.get("name"):
        found.append(("plugin", f"{plugin['name']} {plugin.get('version', '')}".strip()))
    measured = (about.get("measured") or {}).get("what")
    if measured:
        found.append(("measured on", str(measured)))
    if about.get("n_tokens") is not None:
        found.append(("tokens asked for", words.number(about["n_tokens"])))
    options = about.get("options") or {}
    if options:
        found.append(("options", ", ".join(f"{name} {_said(value)}" for name, value in options.items())))
    return found


def _said(value: object) -> str:
    return "none" if value is None else str(value)
