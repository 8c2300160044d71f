"""The charts of runs, for ``qsae plot`` and the report. Imports no torch. Shapes: F latents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsae_report.charts import Axis, Bars, Curves, Histogram, Rule, Series
from qsae_report.training_log import Member, TrainingLog

if TYPE_CHECKING:
    from qsae_samples import Samples

CURVES = {
    "loss": ("Training loss", Axis("loss")),
    "fvu": ("Fraction of variance unexplained", Axis("FVU")),
    "l0": ("Active latents per token", Axis("L0")),
    "dead": ("Dead latents", Axis("share of latents that have not fired lately", format="percent")),
    "lr": ("Learning rate", Axis("learning rate")),
}
"""Measure of a log -> title and axis of its chart."""
HELD_OUT = ("fvu",)
"""Measures whose values on held-out vectors are drawn beside those of batches."""
MANY_SIZES = 20
"""A loss of which the largest value is more than this many times the least has a logarithmic axis."""
DENSITY_BIN = 0.25
"""Width of a bin of densities, in powers of ten."""
OCTAVE_PARTS = 2
"""Bins of an octave in a histogram of activations."""
COSINE_BIN, R_BIN = 0.02, 0.05
SLACK = 1e-5
"""Of a bin's width, by which a value may miss its edge and is on it: what float32 loses."""


def training_curves(runs: Mapping[str, TrainingLog], measures: Iterable[str] = CURVES) -> dict[str, Curves]:
    """Measure -> its curves, of measures that some run has logged; the log has to be read with them.

    A line for each coder of each run, and of what was measured on held-out vectors meanwhile a point each.

    Args:
        runs: name -> log. Of a single coder of a single run the name is all that the legend says; without a
            name, a run's own coder is called "this coder" beside others.
    """
    numbers = {name: number for number, name in enumerate(coder_names(runs))}
    alone = len(numbers) == 1
    found = {}
    for measure in measures:
        lines: list[Series] = []
        points: list[Series] = []
        for run, log in runs.items():
            held_out = log.held_out.get(measure, {}) if measure in HELD_OUT else {}
            for member, logged in log.values.get(measure, {}).items():
                look = numbers[_joined(run, member)]
                name = _joined(run, member) or ("" if alone else "this coder")
                if member in held_out:
                    points.append(_held_out(name, held_out[member], look))
                lines.append(Series(name, list(logged), list(logged.values()), look=look))
        if lines:
            title, axis = CURVES[measure]
            if measure == "loss" and _is_wide(lines):
                axis = Axis(axis.label, log=True)
            notes = ["Points: on held-out vectors. Lines: on batches of training."] if points else []
            found[measure] = Curves(title, Axis("step"), axis, [*lines, *points], notes)
    return found


def coder_names(runs: Mapping[str, TrainingLog]) -> list[str]:
    """What legends call each coder that has logged something; its place here is its look in all curves."""
    logged = [(run, member) for run, log in runs.items() for of in log.values.values() for member in of]
    return list(dict.fromkeys(_joined(run, member) for run, member in logged))


def _joined(run: str, member: Member) -> str:
    return ", ".join(part for part in (run, str(member)) if part)


def _held_out(name: str, steps: Mapping[int, float | None], look: int) -> Series:
    label = f"{name}, held out" if name else "held out"
    return Series(label, list(steps), list(steps.values()), points=True, line=False, look=look, legend=False)


def _is_wide(lines: Sequence[Series]) -> bool:
    known = [y for line in lines for y in line.y if y is not None]
    return bool(known) and min(known) > 0 and max(known) > MANY_SIZES * min(known)


def density_histogram(groups: Mapping[str, tuple[ArrayLike, int | None]]) -> Histogram:
    """How many latents fire on which share of tokens.

    Args:
        groups: name -> densities ``[F]``, and over how many tokens, where that is known.
    """
    several = len(groups) > 1
    bars, notes = [], []
    for name, (given, n_tokens) in groups.items():
        densities = _finite(given)
        firing = densities[densities > 0]
        silent = len(densities) - len(firing)
        logs = np.log10(firing)
        edges, counts = _counted(logs, DENSITY_BIN)
        bars.append(Bars(name, [10.0**edge for edge in edges], _shares(counts, len(densities), several)))
        on = "" if n_tokens is None else f" on {n_tokens:,} tokens"
        of = f"{name}: " if several and name else ""
        notes.append(f"{of}{silent:,} of {len(densities):,} latents never fire{on}; they have no bar.")
    x = Axis("share of tokens on which a latent fires", log=True, format="percent")
    return Histogram("Density of latents", x, _latents(several), bars, notes)


def activation_histogram(groups: Mapping[str, Samples]) -> Histogram:
    """How strong all firings of all latents are.

    Args:
        groups: name -> samples.
    """
    bars = []
    for name, samples in groups.items():
        edges, counts = _magnitudes(samples)
        bars.append(Bars(name, edges, _shares(counts, counts.sum(), True)))
    x = Axis("activation, |f|", log=True)
    return Histogram("Activations", x, Axis("share of firings", format="percent"), bars)


def _magnitudes(samples: Samples) -> tuple[list[float], NDArray[np.float64]]:
    """Edges, and firings between them. The strongest bin of a latent comes first in its row."""
    of_latent = samples.arrays["histogram"]
    bins = samples.about["bins"]
    together = bins["of_an_octave"] // OCTAVE_PARTS
    number_FB = samples.arrays["histogram_top"].astype(np.int64)[:, None] - np.arange(of_latent.shape[1])
    fires = of_latent > 0
    number, count = np.maximum(number_FB[fires], 0) // together, of_latent[fires]
    if not len(number):
        return [], np.zeros(0)
    first = int(number.min())
    counts = np.bincount(number - first, weights=count).astype(np.float64)
    steps = np.arange(first, first + len(counts) + 1) / OCTAVE_PARTS - bins["octaves_below_1"]
    return np.exp2(steps).tolist(), counts


def similarity_histogram(groups: Mapping[str, ArrayLike]) -> Histogram:
    """How similar each latent's atom is to the most similar other one.

    Args:
        groups: name -> cosines ``[F]``.
    """
    several = len(groups) > 1
    bars = [_binned(name, _finite(given), COSINE_BIN, several) for name, given in groups.items()]
    return Histogram("Similarity of atoms", Axis("largest cosine to another atom"), _latents(several), bars)


def survival_histogram(groups: Mapping[str, ArrayLike], *, survived: float, damaged: float) -> Histogram:
    """How far codes of latents are still what they were in full precision.

    Args:
        groups: name -> correlation r ``[F]`` of each latent's code with that in full precision; NaN where it
            is not judged.
        survived, damaged: borders of the classes: at ``survived`` and above, and below ``damaged``.
    """
    several = len(groups) > 1
    bars, notes = [], []
    for name, given in groups.items():
        r = np.asarray(given, dtype=np.float64)
        judged = _finite(r)
        bars.append(_binned(name, judged, R_BIN, several))
        if len(judged) < len(r):
            of = f"{name}: " if several and name else ""
            notes.append(
                f"{of}{len(r) - len(judged):,} of {len(r):,} latents have no r: they fire too seldom in full "
                "precision to be judged, or have one value alone here."
            )
    rules = [Rule(damaged, f"damaged below {damaged:g}"), Rule(survived, f"survived from {survived:g}")]
    x = Axis("correlation r of a latent's code with that in full precision", high=1.0)
    return Histogram("Survival of latents", x, _latents(several), bars, notes, rules)


class RatePoint(NamedTuple):
    """A coder in a chart of rate and distortion."""

    curve: str
    """Points of one curve are joined."""
    label: str
    rate: float
    """Bytes, or bits of a weight."""
    fvu: float
    error: float | None = None


def rate_distortion(points: Sequence[RatePoint], rate: Literal["bytes", "bits"] = "bytes") -> Curves:
    """What fidelity costs. There is no legend where all points are labelled with their curves' names.

    Args:
        points: in the order in which the legend names their curves.
        rate: of what ``points`` have it.
    """
    curves: dict[str, list[RatePoint]] = {}
    for point in points:
        curves.setdefault(point.curve, []).append(point)
    repeated = all(point.label == point.curve for point in points)
    series = [_rate_curve(name, own, legend=not repeated) for name, own in curves.items()]
    x = Axis("bytes on disk, encoder included", log=True, format="bytes")
    x = x if rate == "bytes" else Axis("bits per weight of the decoder", log=True)
    return Curves("Rate and distortion", x, Axis("FVU"), series)


def _rate_curve(name: str, points: Sequence[RatePoint], *, legend: bool) -> Series:
    ordered = sorted(points, key=lambda point: point.rate)
    return Series(
        name,
        [point.rate for point in ordered],
        [point.fvu for point in ordered],
        [point.error for point in ordered],
        points=True,
        labels=[point.label for point in ordered],
        legend=legend,
    )


def _binned(name: str, values: NDArray[np.float64], size: float, several: bool) -> Bars:
    edges, counts = _counted(values, size)
    return Bars(name, edges, _shares(counts, len(values), several))


def _counted(values: NDArray[np.float64], size: float) -> tuple[list[float], NDArray[np.float64]]:
    """Edges that are multiples of ``size``, and how many values are from one up to the next; values at the
    last edge belong to the last bin."""
    if not len(values):
        return [], np.zeros(0)
    number = np.floor(values / size + SLACK).astype(np.int64)
    first, last = int(number.min()), int(number.max())
    if last > first and np.allclose(values[number == last], last * size, rtol=SLACK, atol=SLACK * size):
        number, last = np.minimum(number, last - 1), last - 1
    edges = [float(f"{edge:.12g}") for edge in np.arange(first, last + 2) * size]
    return edges, np.bincount(number - first, minlength=last - first + 1).astype(np.float64)


def _shares(counts: NDArray[np.float64], total: float, wanted: bool) -> list[float]:
    """Counts, or shares of a total: groups of different size compare by shares."""
    return (counts / total).tolist() if wanted and total else counts.tolist()


def _latents(several: bool) -> Axis:
    return Axis("share of latents", format="percent") if several else Axis("latents")


def _finite(values: Any) -> NDArray[np.float64]:
    given: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    return given[np.isfinite(given)]
