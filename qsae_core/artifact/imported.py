"""A checkpoint of another library as a stored coder, or a folder of several as one for each layer."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qsae_core.artifact import artifact
from qsae_core.artifact.checkpoints import (
    CHECKPOINT_FILES,
    IMPORTED,
    SETTINGS_FILES,
    check_free,
    format_of,
    import_record,
    meant_by,
    open_checkpoint,
    packed_format,
)
from qsae_core.artifact.coder_sets import save_set
from qsae_core.artifact.composed import blocks, compose_checkpoint
from qsae_core.artifact.description import NO_DATA, TRAINED_ON, Origins
from qsae_core.artifact.packed import import_packed, read_packed
from qsae_core.coders.coder_set import CoderSet
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.compose.kernels import activate_kernels
from qsae_core.config.layers import Layer
from qsae_core.config.run import RunConfig, resolve
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.format import Checkpoint
from qsae_core.contracts.provenance import Provenance
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.interrupt import sigterm_interrupts
from qsae_core.kinds import CODER_SLOTS, PART_SLOTS, QUANTIZER_SLOTS
from qsae_core.plugins.addresses import is_address, local_path
from qsae_core.plugins.records import load_plugins

if TYPE_CHECKING:
    from qsae_core.registry import Registry


def read_checkpoint(
    path: str | os.PathLike[str], *, format: str | None = None, registry: Registry | None = None
) -> MatrixCoder:
    """The coder in another library's file or folder, in evaluation mode: ``encode``, ``decode``, ``forward``.

    Args:
        path: of a format that is installed; or an address (``hf://user/repo/path``), of which a plugin
            fetches tensors and settings.
        format: which; None: the one that recognizes it.

    Raises:
        ArtifactError: if no format recognizes it, it is damaged, or it cannot be had exactly.
        PluginError: if a component that it takes is not installed; the message names the distribution.
    """
    place = local_path(path, CHECKPOINT_FILES, beside=SETTINGS_FILES)
    registry = registry or load_plugins().registry
    activate_kernels("auto", registry)
    form = format or format_of(place, registry)
    if (packed := packed_format(form, registry)) is not None:
        return read_packed(packed, place, registry)
    place, members = meant_by(place, registry, form)
    if members:
        shown = os.fspath(path)
        raise ArtifactError(
            f"holds several coders, and one is asked for here: {', '.join(members)}",
            where=shown,
            allowed=", ".join(str(member) for member in members.values()),
            next=f"give one of these; or qsae import {shown} --out DIR, and qsae_core.load_set(DIR)",
        )
    return compose_checkpoint(open_checkpoint(place, registry, form), registry, str(place))


NAMES_DATA = {"use", "path", "text", "dataset"}
"""Options of data sources that say which data it is, beside those that say how it is read."""


def import_checkpoint(
    path: str | os.PathLike[str],
    out: pathlib.Path,
    registry: Registry,
    layers: Sequence[Layer] = (),
    *,
    format: str | None = None,
    trained_on: Callable[[RunConfig, CoderShape], Origins] | None = None,
    message: Callable[[str], None],
) -> MatrixCoder | CoderSet:
    """``read_checkpoint``, stored as a folder that ``load`` and every command take like a trained coder's.

    A folder of several coders becomes one of a coder for each layer.

    Args:
        path: as ``read_checkpoint`` takes it; the record has it as it is given here.
        layers: the data that it is evaluated and quantized on, metrics and evaluations, over what the
            checkpoint says.
        trained_on: what to record of the data that it was trained on, which no other library does, from the
            coder's configuration and shape; None: that is not known.
        message: is told what the user should know.

    Raises:
        ConfigError: if something is at ``out`` already, or the layers do not fit.
        ArtifactError, PluginError: as ``read_checkpoint``.
    """
    check_free(out)
    with sigterm_interrupts():
        return _imported(path, out, registry, layers, form=format, trained_on=trained_on, message=message)


def _imported(
    path: str | os.PathLike[str],
    out: pathlib.Path,
    registry: Registry,
    layers: Sequence[Layer],
    *,
    form: str | None,
    trained_on: Callable[[RunConfig, CoderShape], Origins] | None,
    message: Callable[[str], None],
) -> MatrixCoder | CoderSet:
    place = local_path(path, CHECKPOINT_FILES, beside=SETTINGS_FILES)
    shown = os.fspath(path) if is_address(path) else str(place)
    form = form or format_of(place, registry)
    if (packed := packed_format(form, registry)) is not None:
        if trained_on is not None:
            raise ConfigError(
                f"{form} keeps what qsae recorded of what its coder was trained on",
                where="--trained-on",
                allowed="checkpoints of other libraries, which record nothing of that",
                next="leave it out",
            )
        return import_packed(packed, place, out, registry, layers)
    top = place
    place, members = meant_by(top, registry, form)
    shown = str(place).replace(str(top), shown, 1)
    if not members:
        checkpoint = open_checkpoint(place, registry, form)
        coder = compose_checkpoint(checkpoint, registry, str(place))
        config, source = _described(checkpoint, place, form, shown, layers, registry, message)
        source = _with_chosen_place(source, config, layers)
        origins = _origins(trained_on, config, coder)
        artifact.save(coder, out, config, registry, source | origins, fresh=True)
        return coder
    named = {name: str(member).replace(str(place), shown, 1) for name, member in members.items()}
    coders, sources, config = _several(members, named, registry, layers, form=form, message=message)
    known = _origins(trained_on, config, coders)
    sources = {name: source | known for name, source in sources.items()}
    save_set(coders, out, config, registry, sources, fresh=True)
    return coders


def _several(
    members: Mapping[str, pathlib.Path],
    named: Mapping[str, str],
    registry: Registry,
    layers: Sequence[Layer],
    *,
    form: str,
    message: Callable[[str], None],
) -> tuple[CoderSet, dict[str, dict[str, Any]], RunConfig]:
    """Several coders, read one after another; what is recorded of each one's source, and their
    configuration."""
    coders, sources, places, config = {}, {}, [], None
    first = next(iter(members))
    for name, member in members.items():
        checkpoint = open_checkpoint(member, registry, form)
        coders[name] = compose_checkpoint(checkpoint, registry, str(member))
        places.append(checkpoint.provenance)
        said = message if config is None else _silent
        own, sources[name] = _described(checkpoint, member, form, named[name], layers, registry, said)
        config = config or own
        _check_alike(config, first, own, name, where=str(member))
    assert config is not None
    try:
        found = CoderSet(coders)
    except ConfigError as error:
        raise ArtifactError(
            f"its coders are of different shapes: {error.where}",
            where=str(next(iter(members.values())).parent),
            next="import one of them: give its own path",
        ) from error
    return found.eval(), sources, _for_all(config, places, layers, registry)


def _check_alike(first: RunConfig, first_name: str, own: RunConfig, name: str, *, where: str) -> None:
    """Coders of a set are stored with one configuration.

    Raises:
        ArtifactError: if that of the first does not describe this one.
    """
    wanted, found = first.to_dict(), own.to_dict()
    for slot in (*CODER_SLOTS, *PART_SLOTS, *QUANTIZER_SLOTS):
        if wanted.get(slot) != found.get(slot):
            raise ArtifactError(
                f"its {slot} is {found.get(slot)}, and that of {first_name} {wanted.get(slot)}",
                where=where,
                allowed="coders of the same components and sizes in one folder",
                next="import them one by one: give the path of each",
            )


def _for_all(
    config: RunConfig, places: Sequence[Provenance], layers: Sequence[Layer], registry: Registry
) -> RunConfig:
    """The configuration of the first of several coders, with data that gives the vectors of them all."""
    first = places[0]
    of_all = replace(
        first,
        sources=tuple(place for own in places for place in own.sources),
        targets=tuple(place for own in places for place in own.targets),
    )
    block = of_all.data_block()
    if block is None or of_all.model is None or any("data" in layer.tree for layer in layers):
        return config
    tree = {name: value for name, value in config.to_dict().items() if name != "versions"}
    return resolve([Layer({**tree, "data": block}, "the checkpoints", fallback=True)], registry)


def _described(
    checkpoint: Checkpoint,
    path: pathlib.Path,
    form: str,
    named: str,
    layers: Sequence[Layer],
    registry: Registry,
    message: Callable[[str], None],
) -> tuple[RunConfig, dict[str, Any]]:
    """The configuration of an imported coder, and what is recorded of its source."""
    tree = {**checkpoint.components, **blocks(checkpoint, registry)}
    block = checkpoint.provenance.data_block()
    if block is not None and "data" not in tree and block["use"] in registry.names("data"):
        tree["data"] = block
    made = Layer(tree, str(path), fallback=True)
    config = resolve([made, *layers], registry)
    source = {**checkpoint.provenance.record(), IMPORTED: import_record(checkpoint, path, form, named)}
    named_by_files = "data" in checkpoint.components or checkpoint.provenance.model is not None
    if not (named_by_files and "data" in tree) and not (names_data(layers) or names_model(layers)):
        source[NO_DATA] = True
        which = "--model, --layer and --site" if block is None else "--model, whose layer and site it names"
        message(
            f"no data was chosen for it: evaluate and quantize it with {which}, or with --data-path; given "
            "here, they are recorded for it"
        )
    for note in checkpoint.notes:
        message(note)
    return config, source


def names_data(layers: Sequence[Layer]) -> bool:
    """Whether text or vectors were chosen, beside how they are read, and of which model."""
    blocks = [layer.tree.get("data", {}) for layer in layers]
    return any(isinstance(block, str) or block.keys() & NAMES_DATA for block in blocks)


def _with_chosen_place(
    source: Mapping[str, Any], config: RunConfig, layers: Sequence[Layer]
) -> dict[str, Any]:
    """``source`` with the model and places that were chosen where the files name none."""
    if not names_model(layers):
        return dict(source)
    chosen = Provenance.of_data_block(config.to_dict()["data"])
    if Provenance.of_record(source).sources:
        chosen = Provenance(chosen.model)
    return {**chosen.record(), **source}


def names_model(layers: Sequence[Layer]) -> bool:
    """Whether a language model was chosen."""
    blocks = [layer.tree.get("data", {}) for layer in layers]
    return any(isinstance(block, Mapping) and "model" in block for block in blocks)


def _origins(
    trained_on: Callable[[RunConfig, CoderShape], Origins] | None,
    config: RunConfig,
    coder: MatrixCoder | CoderSet,
) -> dict[str, Any]:
    return {} if trained_on is None else {TRAINED_ON: list(trained_on(config, coder.shape))}


def _silent(text: str) -> None:
    """What was said of the first of several coders."""
