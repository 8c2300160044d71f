"""Evaluating a stored coder on data that may differ from what it was trained on."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from qsae_core.artifact import artifact
from qsae_core.artifact import description as coder_json
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.serving import squared_sines
from qsae_core.compose.compose import compose_data, compose_evaluations, compose_metrics
from qsae_core.compose.setup import resolve_device, shape_of
from qsae_core.config.layers import Layer, checked_layer
from qsae_core.config.run import RunConfig, resolve
from qsae_core.contracts.coder import AtomErrors
from qsae_core.contracts.data import DataSource
from qsae_core.errors import DataError
from qsae_core.evaluation.evaluate import Outcome, entries, evaluate
from qsae_core.evaluation.measured_part import measured_part, origins
from qsae_core.kinds import LIST_DEFAULTS
from qsae_core.results.run import FLOAT_TWIN

if TYPE_CHECKING:
    from qsae_core.registry import Registry

DECODER = "W_dec"


class Evaluated(NamedTuple):
    """A stored coder as it was evaluated."""

    entry: dict[str, Any]
    """JSON values: ``path``; ``model`` and ``layer`` of the data; ``measured``, which part of it
    (``MeasuredPart.entry``); ``artifact``, its measurements;
    ``evaluations``, name -> scalars; ``atom_errors_from``: ``masters``, ``float twin`` or None; of a level
    also ``level`` and ``n_latents``."""
    outcomes: dict[str, Outcome]
    """Evaluation -> all that it found."""


def evaluate_artifact(
    path: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    *,
    n_tokens: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    level: int | None = None,
) -> Evaluated:
    """Load the coder at ``path`` and run the config's evaluations on the config's data.

    Data that the coder was not trained on is measured whole, up to ``n_tokens``; of its training data what is
    held out. Metrics learn what quantization does to the atoms from its float masters, or, where these were
    not kept, from the atoms of the float twin beside it.

    Args:
        n_tokens: None: of other data all, where their number is known; else as in training.
        level: as ``artifact.load`` takes it; ``bytes`` of the measurements are then those that it reads.

    Raises:
        DataError: if the data's width is not the coder's.
        ArtifactError: if there is no sound coder at ``path``.
        ConfigError: if there is no such level.
    """
    sizes = {"n_tokens": n_tokens, "batch_size": batch_size}
    (found,) = evaluate_levels(path, config, registry, [level], device=device, **sizes)
    return found


def evaluate_levels(
    path: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    levels: Sequence[int | None] | None = None,
    *,
    n_tokens: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> Iterator[Evaluated]:
    """``evaluate_artifact`` of several levels; one is in memory at a time, and the data is opened once.

    Args:
        levels: which; in it, None is the whole coder. None: all, the first one first.
    """
    device = resolve_device(device)
    folder = artifact.artifact_folder(path)
    description = coder_json.read_description(folder)
    if levels is None:
        levels = range(1, description["levels"]["count"] + 1)
    coder = artifact.load(folder, level=levels[0], device=device, registry=registry)
    data = compose_data(config, registry, device=device)
    try:
        check_widths(coder, data, folder)
        part = measured_part(data, config, origins(description), folder)
        sizes = {"n_tokens": n_tokens or part.size, "batch_size": batch_size}
        for level in levels:
            if level != levels[0]:
                coder = artifact.load(folder, level=level, device=device, registry=registry)
            errors, errors_from = _atom_errors(coder, folder, registry)
            outcomes = evaluate_coder(
                coder, data, config, registry, errors, twin=_twin(folder, config, registry, device), **sizes
            )
            entry = _entry(coder, data, folder, level)
            entry |= {
                "measured": part.entry(),
                "evaluations": entries(outcomes),
                "atom_errors_from": errors_from,
            }
            yield Evaluated(entry, outcomes)
    finally:
        data.close()


def _entry(coder: MatrixCoder, data: DataSource, folder: pathlib.Path, level: int | None) -> dict[str, Any]:
    """What was evaluated, on what, and what the artifact costs."""
    entry = {
        "path": str(folder),
        "model": data.model_name,
        "layer": data.layer,
        "artifact": _measured(coder, folder, level),
    }
    return entry if level is None else {**entry, "level": level, "n_latents": coder.n_latents}


def _measured(coder: MatrixCoder, folder: pathlib.Path, level: int | None) -> dict[str, Any]:
    """The artifact's measurements; of a level with the bytes of tensors that it reads."""
    measured = artifact.measurements(coder, folder)
    if level is None:
        return measured
    n_bytes = artifact.level_bytes(folder)[level - 1]
    return {**measured, "bytes": n_bytes, "times_smaller": measured["float_bytes"] / n_bytes}


def evaluate_coder(
    coder: MatrixCoder,
    data: DataSource,
    config: RunConfig,
    registry: Registry,
    atom_errors: AtomErrors | None = None,
    *,
    n_tokens: int | None = None,
    batch_size: int | None = None,
    twin: MatrixCoder | None = None,
) -> dict[str, Outcome]:
    """The config's evaluations, with its metrics, on the data's held-out part.

    Args:
        atom_errors: ``SparseCoder.atom_errors``.
        n_tokens, batch_size: None: as in training.
        twin: the full-precision twin, for evaluations that observe it.
    """
    return evaluate(
        coder,
        data,
        compose_evaluations(config, registry),
        lambda: list(compose_metrics(config, registry).values()),
        n_tokens=n_tokens or config.train.eval_tokens,
        batch_size=batch_size or config.train.batch_size,
        atom_errors=atom_errors,
        twin=twin,
    )


def _twin(folder: pathlib.Path, config: RunConfig, registry: Registry, device: str) -> MatrixCoder | None:
    """The float twin beside an artifact, where an evaluation observes it."""
    twin = folder.parent / FLOAT_TWIN
    wanted = any("twin" in e.observes for e in compose_evaluations(config, registry).values())
    if not wanted or folder == twin or not (twin / coder_json.DESCRIPTION).is_file():
        return None
    return artifact.load(twin, device=device, registry=registry)


def recorded_config(folder: pathlib.Path, registry: Registry, changes: Layer | None = None) -> RunConfig:
    """The configuration that an artifact was trained with, and every default metric that is installed.

    Args:
        changes: a layer over it; another component that it chooses has none of the recorded one's options.
    """
    tree = dict(coder_json.usable_description(folder, registry)["config"])
    chosen = [entry["use"] for entry in tree["metrics"]]
    installed = registry.names("metric")
    more = [name for name in LIST_DEFAULTS["metrics"] if name in installed and name not in chosen]
    tree["metrics"] = [*tree["metrics"], *({"use": name} for name in more)]
    recorded = checked_layer(tree, str(folder / coder_json.DESCRIPTION))
    return resolve([dataclasses.replace(recorded, fallback=True), *([changes] if changes else [])], registry)


@torch.no_grad()
def _atom_errors(
    coder: MatrixCoder, folder: pathlib.Path, registry: Registry
) -> tuple[AtomErrors | None, str | None]:
    """``SparseCoder.atom_errors``, or the same against the float twin's atoms; and which of the two."""
    errors = coder.atom_errors()
    if errors is not None:
        return errors, "masters"
    twin = folder.parent / FLOAT_TWIN
    if DECODER not in coder.matrices() or not (twin / coder_json.DESCRIPTION).is_file():
        return None, None
    other, n = artifact.load(twin, device=str(coder.device), registry=registry), coder.n_latents
    sines = squared_sines(_equal_layers(other)[:n], _equal_layers(coder))
    return AtomErrors(sines, other.atom_norms()[:n]), "float twin"


def _equal_layers(coder: MatrixCoder) -> Tensor:
    """float32 ``[F, L d_out]``: its atoms over the scale of each layer's data, not rotated."""
    return (coder.atoms() / coder.norm_out.scale).flatten(1)


def check_widths(coder: MatrixCoder, data: DataSource, folder: pathlib.Path) -> None:
    """Refuse data that a stored coder was not made for.

    Raises:
        DataError: with both shapes.
    """
    shape = shape_of(data)
    if shape != coder.shape:
        raise DataError(
            f"the data does not fit the coder: {shape._asdict()} against {coder.shape._asdict()}",
            where=str(folder),
            next="choose the model, layer and site that the coder was trained on (coder.json: config.data)",
        )
