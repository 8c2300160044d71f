"""Evaluating a stored coder on data that may differ from what it was trained on."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from qsae_core.artifact import artifact, places
from qsae_core.artifact import description as coder_json
from qsae_core.artifact.coder_sets import load_set
from qsae_core.artifact.places import set_folder
from qsae_core.compose.compose import compose_data, compose_evaluations, compose_metrics
from qsae_core.compose.setup import resolve_device
from qsae_core.config.layers import Layer, checked_layer
from qsae_core.config.run import RunConfig, resolve
from qsae_core.contracts.coder import AtomErrors, SparseCoder
from qsae_core.contracts.data import DataSource
from qsae_core.evaluation.beside import atom_errors_of, stored_twin
from qsae_core.evaluation.entry import coder_entry, set_entry
from qsae_core.evaluation.evaluate import Outcome, entries, evaluate, n_documents
from qsae_core.evaluation.fitting import data_of, of_other_sites
from qsae_core.evaluation.measured_part import MeasuredPart, measured_part, origins
from qsae_core.evaluation.of_layers import WHOLE
from qsae_core.evaluation.watch import Subject, Watch
from qsae_core.kinds import LIST_DEFAULTS

if TYPE_CHECKING:
    from qsae_core.registry import Registry


Sizes = dict[str, Any]
"""``n_tokens`` and ``batch_size``; None: as in training."""


class Evaluated(NamedTuple):
    """A stored coder as it was evaluated."""

    entry: dict[str, Any]
    """JSON values: ``path``; ``model`` and ``layer`` of the data; ``measured``, which part of it
    (``MeasuredPart.entry``); ``artifact``, its measurements;
    ``evaluations``, name -> scalars; ``atom_errors_from``: ``masters``, ``float twin`` or None; of a level
    also ``level`` and ``n_latents``."""
    outcomes: Mapping[str, Outcome]
    """Evaluation -> all that it found."""
    layers: Mapping[str, Mapping[str, Outcome]] = {}
    """Of several coders: layer -> the same of its coder alone; ``layers`` of the entry has their scalars."""
    n_tokens: int | None = None
    """How many were asked for."""


def evaluate_artifact(
    path: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    *,
    n_tokens: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    level: int | None = None,
    watch: Watch | None = None,
) -> Evaluated:
    """Load the coder at ``path``, or one for each layer, and run the config's evaluations on its data.

    Data that the coder was not trained on is measured whole, up to ``n_tokens``; of its training data what is
    held out. Metrics learn what quantization does to the atoms from its float masters, or, where these were
    not kept, from the atoms of the float twin beside it.

    Args:
        n_tokens: None: of other data all, where their number is known; else as in training.
        level: as ``artifact.load`` takes it; ``bytes`` of the measurements are then those that it reads.
        watch: is told what is evaluated on what, and how far that is.

    Raises:
        DataError: if the data's width is not the coder's.
        ArtifactError: if there is no sound coder at ``path``.
        ConfigError: if there is no such level.
    """
    sizes: Sizes = {"n_tokens": n_tokens, "batch_size": batch_size}
    several = set_folder(path) if level is None else None
    if several is not None:
        return _evaluate_set(several, config, registry, resolve_device(device), sizes, watch)
    (found,) = evaluate_levels(path, config, registry, [level], device=device, watch=watch, **sizes)
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
    watch: Watch | None = None,
) -> Iterator[Evaluated]:
    """``evaluate_artifact`` of several levels; one is in memory at a time, and the data is opened once.

    Args:
        levels: which; in it, None is the whole coder. None: all, the first one first.
    """
    device = resolve_device(device)
    folder = places.artifact_folder(path)
    description = coder_json.read_description(folder)
    if levels is None:
        levels = range(1, description["levels"]["count"] + 1)
    coder = artifact.load(folder, level=levels[0], device=device, registry=registry, map_large=True)
    opened = compose_data(config, registry, device=device)
    try:
        data = data_of(coder, opened, folder, description)
        part = measured_part(data, config, origins(description), folder)
        part = part.warned(of_other_sites(data, description))
        sizes: Sizes = {"n_tokens": n_tokens or part.size or config.train.eval_tokens}
        for level in levels:
            if level != levels[0]:
                coder = artifact.load(folder, level=level, device=device, registry=registry, map_large=True)
            errors, errors_from = atom_errors_of(coder, folder, registry)
            if watch is not None:
                watch.begins(_subject(coder, data, config, folder, part, sizes["n_tokens"], level))
            twin = stored_twin(folder, config, registry, device)
            beside: dict[str, Any] = {"twin": twin, "watch": watch, "batch_size": batch_size}
            outcomes = evaluate_coder(coder, data, config, registry, errors, **beside, **sizes)[WHOLE]
            entry = coder_entry(coder, data, folder, level)
            entry |= {
                "measured": part.entry(n_documents(outcomes)),
                "evaluations": entries(outcomes),
                "atom_errors_from": errors_from,
            }
            yield Evaluated(entry, outcomes, **sizes)
    finally:
        opened.close()


def _evaluate_set(
    folder: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    device: str,
    sizes: Sizes,
    watch: Watch | None,
) -> Evaluated:
    """The coders of a run with one for each layer, together and each alone."""
    coders = load_set(folder, device=device, registry=registry)
    members = places.member_folders(folder)
    data = compose_data(config, registry, device=device)
    try:
        description = places.stored_description(folder)
        data_of(coders, data, folder, description)
        part = measured_part(data, config, origins(description), folder)
        part = part.warned(of_other_sites(data, description, several=True))
        n_tokens = sizes["n_tokens"] or part.size or config.train.eval_tokens
        if watch is not None:
            watch.begins(_subject(coders, data, config, folder, part, n_tokens))
        found = [atom_errors_of(coders[name], place, registry) for name, place in members.items()]
        joined = coders.join_errors([errors for errors, _ in found])
        twin = stored_twin(folder, config, registry, device)
        beside: dict[str, Any] = {"twin": twin, "watch": watch, "batch_size": sizes["batch_size"]}
        outcomes = evaluate_coder(coders, data, config, registry, joined, n_tokens=n_tokens, **beside)
    finally:
        data.close()
    entry: dict[str, Any] = {"path": str(folder), "model": data.model_name, "layer": data.layer}
    read = [n for found_ in outcomes.values() if (n := n_documents(found_)) is not None]
    entry["measured"] = part.entry(max(read, default=None))
    entry |= set_entry(coders, folder, outcomes)
    entry["atom_errors_from"] = found[0][1] if joined is not None else None
    whole = outcomes.pop(WHOLE)
    return Evaluated(entry, whole, outcomes, n_tokens)


def _subject(
    coder: SparseCoder,
    data: DataSource,
    config: RunConfig,
    folder: pathlib.Path,
    part: MeasuredPart,
    n_tokens: int,
    level: int | None = None,
) -> Subject:
    in_contexts, names = data.language_model() is not None, tuple(block.use for block in config.evaluate)
    of_data = (data.model_name, data.layer, part.entry(), n_tokens, in_contexts)
    return Subject(folder, coder.n_latents, level, *of_data, names, part.is_other)


def evaluate_coder(
    coder: SparseCoder,
    data: DataSource,
    config: RunConfig,
    registry: Registry,
    atom_errors: AtomErrors | None = None,
    *,
    n_tokens: int | None = None,
    batch_size: int | None = None,
    twin: SparseCoder | None = None,
    watch: Watch | None = None,
) -> dict[str, dict[str, Outcome]]:
    """The config's evaluations, with its metrics, on the data's held-out part: ``evaluate.evaluate``.

    Args:
        atom_errors: ``SparseCoder.atom_errors``.
        n_tokens, batch_size: None: as in training.
        twin: the full-precision twin, for evaluations that observe it.
        watch: is told how far it is.
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
        watch=watch,
    )


def recorded_config(folder: pathlib.Path, registry: Registry, changes: Layer | None = None) -> RunConfig:
    """The configuration that an artifact was trained with, and every default metric that is installed.

    Args:
        changes: a layer over it; another component that it chooses has none of the recorded one's options.
    """
    first = places.first_folder(folder)
    tree = dict(coder_json.usable_description(first, registry)["config"])
    chosen = [entry["use"] for entry in tree["metrics"]]
    installed = registry.names("metric")
    more = [name for name in LIST_DEFAULTS["metrics"] if name in installed and name not in chosen]
    data_chosen = changes is not None and "data" in changes.tree
    coder_json.check_data_known(coder_json.read_description(first), data_chosen, str(first))
    tree["metrics"] = [*tree["metrics"], *({"use": name} for name in more)]
    recorded = checked_layer(tree, str(first / coder_json.DESCRIPTION))
    return resolve([dataclasses.replace(recorded, fallback=True), *([changes] if changes else [])], registry)
