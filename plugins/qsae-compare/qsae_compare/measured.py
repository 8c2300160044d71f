"""Trained coders with what was measured on them, as comparisons read them from disk."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qsae_compare.columns import COLUMNS
from qsae_core import Run, load, load_set, runs
from qsae_core.errors import ArtifactError
from qsae_core.runs import CODER_SLOTS, FLOAT_TWIN, SLOTS, read_json, values_of

if TYPE_CHECKING:
    from qsae_core.runs import Registry

DECODER, ENCODER = "W_dec", "W_enc"
"""How the names of a coder's decoder and encoder matrices begin."""
METHOD = "quantized"
"""What an essence calls the way in which a trained coder was quantized."""
MEASURED: dict[str, Any] = {"bytes": int, "times_smaller": (int, float), "bits_per_weight": dict}
"""What is known of an artifact in a summary, and as what."""
OF_FLOAT_ATOMS = ("kappa", "weight_error", "weight_error_unweighted", "predicted_delta_fvu")
"""Values that need the atoms before quantization."""
OF_METHOD = ("finetune", "alternate", "finetune_steps", "lr")
"""What comparisons read of how a coder was quantized."""


@dataclass(frozen=True)
class Measured:
    """A coder on disk and its measurements.

    Attributes:
        folder: where its ``coder.json`` is.
        run: the folder of its training run; None for an artifact that stands by itself.
        name: what its run calls it: ``coder``, ``float_twin``; of one layer's ``coder/2``.
        config: the configuration that it was trained with, as in ``coder.json``.
        sizes: matrix -> how many weights it has.
        artifact: what ``artifact.measurements`` gave.
        values: all evaluations' values by name; empty where nothing was measured.
        method: how a trained coder was quantized; None where training was all.
        errors_from: what ``weight_error`` compares its atoms with: ``masters`` (its own) or ``float twin``;
            None where that is not known.
        measured_on: the data that it was measured on, where that is not what it was trained on.
        vectors: which vectors, and how many, in words; None where that is not recorded.
        warning: what is wrong with them as a measurement of this coder.
        made_from: the float coder that it was quantized from, as it was measured then on the same vectors;
            None where there is none, or where this one was measured again.
    """

    folder: pathlib.Path
    run: pathlib.Path | None
    name: str
    config: Mapping[str, Any]
    sizes: Mapping[str, int]
    artifact: Mapping[str, Any]
    values: Mapping[str, Any]
    errors_from: str | None = None
    method: Mapping[str, Any] | None = None
    measured_on: Mapping[str, Any] | None = None
    vectors: str | None = None
    warning: str | None = None
    made_from: Measured | None = None

    @property
    def is_twin(self) -> bool:
        """Whether it was trained beside a quantized coder."""
        return self.name.partition("/")[0] == FLOAT_TWIN

    @property
    def of_layer(self) -> str:
        """The layer whose coder it is, where its run has one for each; else empty."""
        return self.name.partition("/")[2]

    @property
    def data(self) -> Mapping[str, Any]:
        """The ``data`` section of its measurements."""
        return self.measured_on or self.config.get("data", {})

    @property
    def seed(self) -> int:
        """The seed of its run."""
        return int(self.config["run"]["seed"])

    @property
    def coder(self) -> str:
        """The SAE's or transcoder's name."""
        return str(next(self.config[slot]["use"] for slot in CODER_SLOTS if slot in self.config))

    @property
    def is_float(self) -> bool:
        """Whether no slot has a quantizer."""
        used = runs.quantizers_of(self.config)
        return all(use == SLOTS[slot].default for slot, use in used.items())

    @property
    def essence(self) -> dict[str, Any]:
        """Its configuration without what does not change the coder: places, trackers, measurements, seed."""
        kept = {s: block for s, block in self.config.items() if s in SLOTS or s == "train"}
        return kept | ({METHOD: self.method} if self.method else {})

    @property
    def rounds_atoms(self) -> bool:
        """Whether its decoder is quantized; where it is not, rounding costs its atoms nothing to predict."""
        return not self.is_float and runs.rounds_atoms(self.config)

    def bits(self, prefix: str = "") -> float | None:
        """Bits per weight of the matrices whose names begin so; None where there is none."""
        found = {n: size for n, size in self.sizes.items() if n.startswith(prefix)}
        stored = self.artifact["bits_per_weight"]
        if not found or not stored.keys() >= found.keys():
            return None
        return float(sum(stored[n] * size for n, size in found.items()) / sum(found.values()))


def read(paths: Sequence[pathlib.Path], registry: Registry) -> list[Measured]:
    """The coders of runs (with their float twins) and of single artifacts, each once, in the order given.

    Raises:
        ArtifactError: if a path is neither a finished run nor an artifact, or a file is not sound.
    """
    found: dict[pathlib.Path, Measured] = {}
    for path in paths:
        entries = list(_of_run(Run(path)) if Run(path).config_file.exists() else _of_artifact(path, registry))
        for entry in entries:
            found.setdefault(entry.folder.resolve(), entry)
    return list(found.values())


def _of_run(run: Run) -> Iterator[Measured]:
    if not run.metrics_file.exists():
        raise ArtifactError(
            "this run is not finished: it has no metrics.json",
            where=str(run.path),
            next=f"qsae train --config {run.config_file} --resume"
            if run.resume_states()
            else "it has nothing to resume from: make it again with --overwrite, or remove it",
        )
    summary = read_json(run.metrics_file)
    _check_summary(summary, run.metrics_file, run.final, MEASURED | {"path": str})
    made = summary.get("quantized_from", {})
    for name, entry in summary["coders"].items():
        now = runs.with_evaluated(entry, run, name, only_then=OF_FLOAT_ATOMS)
        found = _measured(run.path / entry["artifact"]["path"], run.path, name, now)
        found = dataclasses.replace(found, method=made.get("method"))
        same = found.values.get("fvu") == values_of(entry).get("fvu")  # not on more vectors since
        source = _source(found, made) if name == "coder" and same else None
        yield dataclasses.replace(found, made_from=source)


def _source(quantized: Measured, made: Mapping[str, Any]) -> Measured | None:
    """The float coder of which ``qsae quantize`` made one, from what it has recorded."""
    evaluations = made.get("evaluations")
    if not evaluations:
        return None
    values, folder = values_of({"evaluations": evaluations}), pathlib.Path(made["path"])
    return dataclasses.replace(quantized, folder=folder, run=None, name="source", method=None, values=values)


def _of_layers(run: Run) -> Iterator[Measured]:
    """Of a run with a coder for each layer, these coders."""
    for name, entry in read_json(run.metrics_file)["coders"].items():
        for layer, own in entry.get("layers", {}).items():
            now = runs.with_evaluated(own, run, name, layer, only_then=OF_FLOAT_ATOMS)
            found = _measured(run.path / own["artifact"]["path"], run.path, f"{name}/{layer}", now)
            data = found.config["data"] | {"layer": layer}  # what sets it apart from the others
            yield dataclasses.replace(found, config={**found.config, "data": data})


def _of_artifact(path: pathlib.Path, registry: Registry) -> Iterator[Measured]:
    several = runs.set_folder(path)
    folder = several or runs.artifact_folder(path)
    for parent in folder.parents[1:3]:  # RUN/checkpoints/final, RUN/checkpoints/final/LAYER
        run = Run(parent)
        if run.metrics_file.exists():
            for measured in [*_of_run(run), *_of_layers(run)]:
                if measured.folder.resolve() == folder.resolve():
                    yield measured
                    return
    beside = Run(folder).metrics_file
    if beside.exists():
        entry = read_json(beside)
        whole = isinstance(entry, dict) and "coders" in entry
        summary = entry if whole else {"coders": {"coder": entry}}
        _check_summary(summary, beside, folder, MEASURED)
        yield _measured(folder, None, "coder", summary["coders"]["coder"])
        return
    unmeasured: dict[str, Any] = {"evaluations": {}}
    if several is not None:
        coders = load_set(folder, kernels="none", registry=registry)
        unmeasured["artifact"] = runs.set_measurements(coders, folder)
        unmeasured["layers"] = dict.fromkeys(coders.names)
    else:
        coder = load(folder, kernels="none", registry=registry)
        unmeasured["artifact"] = runs.measurements(coder, folder)
    yield _measured(folder, None, "coder", unmeasured)


def _check_summary(
    summary: Any, file: pathlib.Path, folder: pathlib.Path, measured: Mapping[str, Any]
) -> None:
    """Refuse a ``metrics.json`` that lacks what comparisons read of every run, or has it in another form."""
    lacking = next(_faults(summary, measured), None)
    if lacking is not None:
        raise ArtifactError(
            f"is no summary of a run: {lacking}",
            where=str(file),
            allowed="the file as qsae wrote it",
            next="copy the whole folder again from its source; "
            f"or remove this file, and qsae compare --evaluate {folder}",
        )


def _faults(summary: Any, measured: Mapping[str, Any]) -> Iterator[str]:
    coders = summary.get("coders") if isinstance(summary, dict) else None
    if not isinstance(coders, dict) or not isinstance(coders.get("coder"), dict):
        yield "it has no coders.coder"
        return
    for name, entry in coders.items():
        parts = entry if isinstance(entry, dict) else {}
        stored, evaluations = parts.get("artifact"), parts.get("evaluations")
        for key, kind in measured.items():
            if not isinstance(stored, dict) or not isinstance(stored.get(key), kind):
                yield f"it has no coders.{name}.artifact.{key}"
        if not isinstance(evaluations, dict) or not all(isinstance(v, dict) for v in evaluations.values()):
            yield f"it has no values in coders.{name}.evaluations"
    made = summary.get("quantized_from", {"method": dict.fromkeys(OF_METHOD)})
    method = made.get("method") if isinstance(made, dict) else None
    if not isinstance(method, dict) or not method.keys() >= set(OF_METHOD):
        yield "it does not say in quantized_from.method how the coder was quantized"


def _measured(
    folder: pathlib.Path, run: pathlib.Path | None, name: str, entry: Mapping[str, Any]
) -> Measured:
    description, n_coders = runs.stored_description(folder), len(entry.get("layers", {})) or 1
    sizes = {n: n_coders * math.prod(matrix["shape"]) for n, matrix in description["layout"].items()}
    values = values_of(entry)
    known = "masters" if values.get("weight_error") is not None else None
    source = entry.get("atom_errors_from", known)
    config, vectors = description["config"], runs.measured_on(_compared(entry))
    return Measured(folder, run, name, config, sizes, entry["artifact"], values, source, vectors=vectors)


def _compared(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with those evaluations alone of which comparisons read a value."""
    read: dict[str, str] = {}
    for evaluation, values in entry["evaluations"].items():
        read |= dict.fromkeys((name for name in COLUMNS if values.get(name) is not None), evaluation)
    kept = set(read.values())
    return {**entry, "evaluations": {e: v for e, v in entry["evaluations"].items() if e in kept}}
