"""The report as one HTML text that asks for nothing outside itself."""

from __future__ import annotations

import base64
import functools
import hashlib
import pathlib
import shlex
from collections.abc import Mapping
from typing import NamedTuple

import jinja2

from qsae_core import load
from qsae_core.errors import ArtifactError
from qsae_core.measuring import directions
from qsae_report import latents, pictures
from qsae_report.cards import cards
from qsae_report.charts import variables
from qsae_report.facts import facts, subtitle
from qsae_report.neighbours import Counterparts, Neighbours, counterparts, neighbours
from qsae_report.on_the_way import on_the_way
from qsae_report.payload import Block, json_text, value_block
from qsae_report.sections import sections
from qsae_report.subject import Subject
from qsae_report.survival import ALIKE, Survival, survival
from qsae_report.words import safe

HERE = pathlib.Path(__file__).parent
STATIC = HERE / "static"
SCRIPTS = (
    "dom.js",
    "data.js",
    "columns.js",
    "tables.js",
    "search.js",
    "rows.js",
    "list.js",
    "examples.js",
    "histogram.js",
    "latent.js",
    "router.js",
)
"""In this order; ``LAST`` follows them, and before it what a served page has besides."""
SERVED = ("try.js", "steering.js")
LAST = ("start.js",)
TITLES = {
    "died": (
        "Latents that died or were damaged",
        "They fire in full precision. First those that never fire here; behind them those that do, with a "
        "code that has little to do with that. Of each kind, those first that are the most frequent there.",
    ),
    "only-here": (
        "Latents without a counterpart there",
        f"No atom of the compared coder has a cosine of {ALIKE:g} with theirs. The least similar first.",
    ),
    "only-there": (
        "Latents there without a counterpart here",
        "Likewise, of the compared coder; the link leads to what is most similar here.",
    ),
}
"""Tables of the view ``survival``."""


class Measured(NamedTuple):
    """What is computed from the atoms of a report's coders."""

    n_latents: int
    near: Neighbours
    beside: Mapping[str, Counterparts]
    """Name of a coder of ``Subject.beside`` -> where its counterparts are."""


def measure(subject: Subject) -> Measured:
    """Compare atoms: of the coder with one another, and with those of the coders beside it.

    Raises:
        ArtifactError: if samples are of another coder, or a compared coder is of other vectors.
    """
    rows = directions(load(subject.coder.folder, map_large=True))
    samples = subject.coder.samples
    if samples is not None and samples.n_latents != len(rows):
        raise ArtifactError(
            f"the samples are of {samples.n_latents:,} latents, and the coder has {len(rows):,}",
            where=str(subject.path),
            next=f"collect anew: qsae samples {subject.path}",
        )
    beside = {
        coder.name: counterparts(rows, directions(load(coder.folder, map_large=True)), str(coder.folder))
        for coder in subject.beside
    }
    return Measured(len(rows), neighbours(rows), beside)


def render(subject: Subject, measured: Measured, *, command: str | None = None, serve: bool = False) -> str:
    """The page.

    Args:
        command: that makes it, for its footer; None: the one without options.
        serve: with the view ``try``, whose script asks the server that the page came from.
    """
    n_latents, near, beside = measured
    survived = survival(subject, beside)
    charts, training_notes = pictures.training(subject)
    script, style = _scripts(serve), _styles(serve)
    views = [("overview", "Overview"), ("training", "Training"), ("evaluations", "Evaluations")]
    views += [("survival", "Survival")] if survived else []
    views += [("latents", "Latents")] + ([("try", "Try")] if serve else [])
    given = {
        "title": subject.coder.name,
        "subtitle": subtitle(subject),
        "path": str(subject.path),
        "views": [{"name": name, "title": title} for name, title in views],
        "notes": [*subject.notes, *_damaged(subject)],
        "command": command or shlex.join(["qsae", "report", str(subject.path)]),
        "cards": cards(subject, n_latents, {name: len(found.back) for name, found in beside.items()}),
        "facts": facts(subject, n_latents),
        "overview_charts": pictures.drawn(pictures.overview(subject, near), "overview", small=True),
        "training_charts": pictures.drawn(charts, "training"),
        "training_notes": training_notes,
        "on_the_way": [
            (part, pictures.drawn(part.charts, f"way-{number}", small=True))
            for number, part in enumerate(on_the_way(subject))
        ],
        "sections": sections(subject, n_latents),
        "survival": survived,
        "survival_charts": pictures.drawn(pictures.surviving(survived), "survival"),
        "survival_tables": [(name, *TITLES[name]) for name in survived.tables],
        "samples": subject.coder.samples is not None,
        "about": json_text(latents.about(subject, n_latents, beside)),
        "blocks": _blocks(subject, measured, survived),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "style": style,
        "serve": serve,
    }
    return safe(_templates().get_template("report.html.j2").render(given))


def _damaged(subject: Subject) -> list[str]:
    """A sentence for every evaluation that cannot be shown, of whichever coder."""
    return [
        f"The evaluation {stored.name} of the {coder.name} is left out: it was damaged."
        for coder in (subject.coder, *subject.beside)
        for stored in coder.evaluations.values()
        if stored.damage is not None
    ]


def _blocks(subject: Subject, measured: Measured, survived: Survival) -> list[Block]:
    found = latents.blocks(subject, measured.n_latents, measured.near, measured.beside)
    tables = {**latents.tables(subject.coder), "#survival": survived.tables}
    return [*found, value_block("tables", tables)]


def _scripts(serve: bool) -> str:
    names = (*SCRIPTS, *(SERVED if serve else ()), *LAST)
    texts = [(STATIC / name).read_text(encoding="utf-8") for name in names]
    return '"use strict";\n(() => {\n' + "\n".join(texts) + "})();\n"


def _styles(serve: bool) -> str:
    colors = zip(variables("light").items(), variables("dark").values(), strict=True)
    charts = "".join(f"{name}: light-dark({light}, {dark}); " for (name, light), dark in colors)
    names = ("report.css", "latents.css", *(("try.css",) if serve else ()))
    texts = [(STATIC / name).read_text(encoding="utf-8") for name in names]
    return "\n".join([f":root {{ {charts}}}", *texts])


@functools.cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(HERE / "templates")
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
