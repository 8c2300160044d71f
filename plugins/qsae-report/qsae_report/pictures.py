"""The charts of each view, as SVG in the page's colours. Shapes: F latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qsae_core.errors import ArtifactError
from qsae_report import figures
from qsae_report.charts import Chart, svg
from qsae_report.differences import of_evaluation, of_samples
from qsae_report.training_log import TrainingLog, read_training_log

if TYPE_CHECKING:
    from qsae_core import Run
    from qsae_report.neighbours import Neighbours
    from qsae_report.subject import Coder, Subject
    from qsae_report.survival import Survival

SMALL, LARGE = {"width": 340, "height": 250}, {"width": 440, "height": 280}
"""Sizes in pixels, as many as the style sheet gives them: four of the small ones go side by side."""
RECONSTRUCTION = "reconstruction"
SPARSITY, DENSITY = "sparsity", "density"
"""The evaluation, and its column, that densities are taken from beside samples."""


def drawn(charts: Sequence[Chart], view: str, *, small: bool = False) -> list[str]:
    """Charts of one part of the page, whose name their ids have; their texts are escaped by ``svg``."""
    size = SMALL if small else LARGE
    return [svg(chart, **size, themed=True, prefix=f"{view}-{n}") for n, chart in enumerate(charts)]


def overview(subject: Subject, near: Neighbours | None) -> list[Chart]:
    """Rate and distortion, densities, activations, similarity of atoms: those that there are values for."""
    found: list[Chart] = []
    points = [*_points(subject.coder, "this coder"), *(p for c in subject.beside for p in _points(c, c.name))]
    if len(points) > 1:
        found.append(replace(figures.rate_distortion(points), notes=_measured_otherwise(subject)))
    densities = _densities(subject)
    if densities:
        found.append(figures.density_histogram(densities))
    sampled = {name: c.samples for name, c in _coders(subject).items() if c.samples is not None}
    if sampled:
        alone = len(sampled) == 1
        sampled = {"" if alone else name: samples for name, samples in sampled.items()}
        chart = figures.activation_histogram(sampled)
        notes = [f"{c.name}: {how}." for c in subject.beside if (how := of_samples(subject, c))]
        found.append(replace(chart, notes=[*chart.notes, *notes]))
    if near is not None and len(near.which) > 1:
        found.append(figures.similarity_histogram({"": near.cosines[:, 0]}))
    return found


def _measured_otherwise(subject: Subject) -> list[str]:
    """Whose FVU was."""
    found = []
    own = subject.coder.holding("fvu", RECONSTRUCTION)
    for coder in subject.beside:
        theirs = coder.holding("fvu", RECONSTRUCTION)
        how = None if own is None or theirs is None else of_evaluation(subject, own, coder, theirs)
        found += [] if how is None else [f"{coder.name}: {how}."]
    return found


def _coders(subject: Subject) -> dict[str, Coder]:
    return {"this coder": subject.coder, **{coder.name: coder for coder in subject.beside}}


def _points(coder: Coder, name: str) -> list[figures.RatePoint]:
    fvu, size = coder.value("fvu", RECONSTRUCTION), coder.artifact.get("bytes")
    return [] if fvu is None or size is None else [figures.RatePoint(name, name, size, fvu)]


def _densities(subject: Subject) -> Mapping[str, tuple[Any, int | None]]:
    """Of each coder by its samples or by the evaluation ``sparsity``, whichever saw more tokens; of none
    where there is nothing of the report's own."""
    found: dict[str, tuple[Any, int | None]] = {}
    for name, coder in _coders(subject).items():
        samples = coder.samples
        sampled = None if samples is None else (samples.densities, samples.n_tokens)
        known = [of for of in (_evaluated(coder), sampled) if of is not None]
        if known:
            found[name] = max(known, key=lambda of: of[1] or 0)
    if "this coder" not in found:
        return {}
    return {name if len(found) > 1 else "": own for name, own in found.items()}


def _evaluated(coder: Coder) -> tuple[Any, int | None] | None:
    """Densities by the evaluation ``sparsity``, and of how many tokens."""
    stored = coder.evaluations.get(SPARSITY)
    if stored is None or stored.result is None or DENSITY not in stored.result.per_latent:
        return None
    densities, n_tokens = (
        stored.result.per_latent[DENSITY].double().numpy(),
        coder.value("n_tokens", SPARSITY),
    )
    return np.nan_to_num(densities), None if n_tokens is None else int(n_tokens)


def training(subject: Subject) -> tuple[list[Chart], list[str]]:
    """Curves of the run and of a compared one, and what is left out of them."""
    notes: list[str] = []
    logs = {}
    runs = {"": subject.run, subject.compared.name if subject.compared else "compared": subject.compared_run}
    for name, run in runs.items():
        log = None if run is None else _log(run, subject.layer, notes)
        if log is not None and log.values:
            logs[name] = log
    if subject.run is None:
        notes.append("It is a coder without its run, so there is no log of its training.")
    if len(logs) > 1:
        logs = {name or "this run": log for name, log in logs.items()}
    return list(figures.training_curves(logs).values()), notes


def _log(run: Run, layer: str | None, notes: list[str]) -> TrainingLog | None:
    """What a run logged, of one layer's coders alone."""
    try:
        log = read_training_log(run.path, tuple(figures.CURVES))
    except ArtifactError as error:
        notes.append(f"{error.where}: {error.what}.")
        return None
    notes += [f"{run.path}: {note}." for note in log.notes]
    if layer is None:
        return log

    def own(tree: Mapping[str, Mapping[Any, Any]]) -> dict[str, dict[Any, Any]]:
        kept = {
            measure: {m: points for m, points in of.items() if m.layer in (None, layer)}
            for measure, of in tree.items()
        }
        return {measure: of for measure, of in kept.items() if of}

    return replace(log, values=own(log.values), held_out=own(log.held_out))


def surviving(found: Survival) -> list[Chart]:
    """How latents fare against the twin, and how similar their counterparts are in a compared coder."""
    charts: list[Chart] = []
    if len(found.r):
        charts.append(
            figures.survival_histogram({"": found.r}, survived=found.survived, damaged=found.damaged)
        )
    for name, cosines in found.cosines.items():
        chart = figures.similarity_histogram({"": cosines})
        axis = replace(chart.x, label="cosine to the most similar atom there")
        charts.append(replace(chart, title=f"Counterparts in {name}", x=axis))
    return charts
