"""From a path to the subject of a report: everything that is stored there, and nothing computed."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from qsae_samples import Samples

from qsae_core.contracts import Result
from qsae_core.errors import ArtifactError, QsaeError
from qsae_core.runs import (
    FLOAT_TWIN,
    coder_label,
    identity,
    quantizers_of,
    read_json,
    stored_description,
    twin_folder,
)
from qsae_report.gather_evaluations import read_evaluations, read_on_the_way
from qsae_report.places import Place, collect, find, no_samples, run_of
from qsae_report.subject import Coder, Evaluation, Subject

PARTS = 3
"""Of the path of a compared run, how many of the last parts name it: ``topk/2/300``."""


def gather(
    path: pathlib.Path,
    compare: pathlib.Path | None = None,
    *,
    layer: str | None = None,
    with_samples: bool = True,
) -> Subject:
    """All that is stored about the coder at ``path``, its float twin, and a coder to compare with.

    Raises:
        ArtifactError: if there is no sound coder, or no samples though they are asked for.
        ConfigError: if there is no such layer.
    """
    place, notes = find(path, layer), list[str]()
    summary = _summary(place, notes)
    description = stored_description(place.folder)
    coder = Coder(
        label(description),
        place.folder,
        _artifact(summary, "coder", place.layer),
        _own(read_evaluations(place.below("evaluations")), place),
        _samples(place) if with_samples else None,
        _trained(summary),
        _held_out(description),
        read_on_the_way(place.root / "evaluations", place.layer),
    )
    twin = _twin(place, summary, notes, samples=with_samples)
    other = None if compare is None else find(compare, layer)
    compared = None if other is None else _compared(other, notes, samples=with_samples)
    notes += _remarks(place, description, compared)
    return Subject(
        path,
        coder,
        twin,
        compared,
        description,
        {} if place.run is None else place.run.record(),
        place.layer,
        place.others,
        place.run,
        None if other is None else other.run,
        notes,
    )


def _remarks(place: Place, description: Mapping[str, Any], compared: Coder | None) -> list[str]:
    """What a reader should know before anything else."""
    found = [] if compared is None else [_other_vectors(description, compared.folder)]
    if place.run is not None and not place.run.finished:
        found.append("The run is not finished: what is here is of its last state.")
    return [sentence for sentence in found if sentence is not None]


def _other_vectors(description: Mapping[str, Any], folder: pathlib.Path) -> str | None:
    """A sentence where a compared coder writes other vectors, whose directions mean something else."""
    own, theirs = (tree.get("source", {}) for tree in (description, stored_description(folder)))
    for key, name in (("model", "the model"), ("target_sites", "the sites")):
        here, there = own.get(key), theirs.get(key)
        if here != there:
            said = [", ".join(one) if isinstance(one, list) else one for one in (here, there)]
            return (
                f"The compared coder is of other vectors ({name}: {said[0]} here, {said[1]} there): "
                "cosines between its atoms and these say little."
            )
    return None


def label(description: Mapping[str, Any]) -> str:
    """``ternary (ste)``, ``topk``: what a coder is, from its ``coder.json``."""
    config = description["config"]
    name = config["sae" if "sae" in config else "transcoder"]["use"]
    quantizers = quantizers_of(config)
    return coder_label(name, quantizers) if set(quantizers.values()) - {"none"} else str(name)


def _samples(place: Place) -> Samples:
    file = place.samples()
    if not file.is_file():
        raise no_samples(place)
    found = Samples.load(file)
    if _is_of_another(found.about, place.folder):
        raise ArtifactError(
            "the samples are of the coder that was here before",
            where=str(file),
            allowed="samples of this one, or a report without examples: --without-samples",
            next=collect(place),
        )
    return found


def _own(stored: Mapping[str, Evaluation], place: Place) -> dict[str, Evaluation]:
    """The evaluations without what says that it is of another coder. Of one of several layers the results say
    of which run they are."""
    if place.layer is not None:
        return dict(stored)
    said = "it is of another coder than the one that is stored here"
    return {
        name: Evaluation(name, None, damage=said) if _is_of_another(found.about, place.folder) else found
        for name, found in stored.items()
    }


def _is_of_another(about: Mapping[str, Any], folder: pathlib.Path) -> bool:
    """Whether something stored says of which coder it is, and that is not the one that is stored there."""
    of = about.get("coder_sha256")
    return of is not None and of != identity(folder)


def _twin(place: Place, summary: Mapping[str, Any], notes: list[str], *, samples: bool) -> Coder | None:
    """The float twin; of a coder that was quantized after training, the float coder that it was made from,
    whose own run has what is stored about it."""
    folder = twin_folder(place.folder)
    if folder is None:
        return None
    name, stored = FLOAT_TWIN.replace("_", " "), read_evaluations(place.below("evaluations", twin=True))
    file, artifact = place.samples(twin=True), _artifact(summary, FLOAT_TWIN, place.layer)
    trained, held_out = _trained(summary), _held_out(stored_description(folder))
    if folder.parent.name != FLOAT_TWIN and folder.name != FLOAT_TWIN:
        name = "before quantizing"
        own = find(run_of(folder, place.layer), place.layer)
        stored, file = read_evaluations(own.below("evaluations")), own.samples()
        if not stored:  # another library's coder has no run
            stored, held_out = _before_rounding(summary), _held_out(stored_description(place.folder))
        summary = _summary(own, notes)
        artifact, trained = _artifact(summary, "coder", place.layer), _trained(summary)
    collected = _optional_samples(file, folder, notes) if samples and file.is_file() else None
    return Coder(name, folder, artifact, stored, collected, trained, held_out)


def _before_rounding(summary: Mapping[str, Any]) -> dict[str, Evaluation]:
    """What ``qsae quantize`` found of the coder that it rounded, on the vectors of the rounded one. Of
    several together there is one record, and none here."""
    found = summary.get("quantized_from", {}).get("evaluations", {})
    entry = summary.get("coders", {}).get("coder", {})
    about = {"measured": entry.get("measured")}
    return {
        name: Evaluation(name, Result(values=values), about)
        for name, values in found.items()
        if "layers" not in entry and not values.keys() & {"unavailable", "failed"}
    }


def _compared(place: Place, notes: list[str], *, samples: bool) -> Coder:
    stored, file = read_evaluations(place.below("evaluations")), place.samples()
    collected = _optional_samples(file, place.folder, notes) if samples and file.is_file() else None
    summary, held_out = _summary(place, notes), _held_out(stored_description(place.folder))
    artifact, name = _artifact(summary, "coder", place.layer), "/".join(place.root.resolve().parts[-PARTS:])
    return Coder(name, place.folder, artifact, stored, collected, _trained(summary), held_out)


def _optional_samples(file: pathlib.Path, folder: pathlib.Path, notes: list[str]) -> Samples | None:
    try:
        found = Samples.load(file)
    except ArtifactError as error:
        notes.append(f"Samples are left out: {error.where}: {error.what}.")
        return None
    if _is_of_another(found.about, folder):
        notes.append(f"Samples are left out: {file} are of the coder that was there before.")
        return None
    return found


def _summary(place: Place, notes: list[str]) -> Mapping[str, Any]:
    """``metrics.json`` of the run; empty where there is none, or it was damaged."""
    if place.run is None or not place.run.metrics_file.is_file():
        return {}
    try:
        found = read_json(place.run.metrics_file)
        if not isinstance(found, dict):
            raise TypeError("it is no mapping")
        return found
    except (QsaeError, TypeError) as error:
        notes.append(f"Sizes and times are left out: {place.run.metrics_file} was damaged ({error}).")
        return {}


def _artifact(summary: Mapping[str, Any], name: str, layer: str | None) -> Mapping[str, Any]:
    """What an artifact costs, as the run's summary says; empty where it does not."""
    entry = summary.get("coders", {}).get(name, {})
    entry = entry if layer is None else entry.get("layers", {}).get(layer, {})
    found: Mapping[str, Any] = entry.get("artifact", {})
    return found


def _trained(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in ("steps", "tokens", "training_seconds") if key in summary}


def _held_out(description: Mapping[str, Any]) -> Any:
    """What data the coder was trained on and what of it was held out; None where that is not recorded."""
    return description.get("source", {}).get("trained_on")
