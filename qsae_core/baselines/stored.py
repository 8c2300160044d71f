"""A run's baselines on disk, made once: ``RUN/baselines/NAME``.

random             an artifact, which says of which coder it is the baseline
frozen-decoder     a results folder with one run: as the coder's, without quantizers, its decoder frozen
other-seed         a results folder with one run: as the float twin's, with other initial weights
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from qsae_core.artifact import artifact, places
from qsae_core.artifact.coder_sets import save_set
from qsae_core.artifact.composed import blocks, compose_checkpoint
from qsae_core.baselines.random_dictionary import random_dictionary
from qsae_core.coders.coder_set import CoderSet, as_one
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.compose.compose import compose_data
from qsae_core.config.layers import checked_layer
from qsae_core.config.run import Block, RunConfig, resolve
from qsae_core.contracts.dense import DenseForm
from qsae_core.contracts.format import Checkpoint
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.evaluation.beside import twin_folder
from qsae_core.evaluation.fitting import data_of
from qsae_core.evaluation.run import recorded_config
from qsae_core.kinds import CODER_SLOTS, PART_SLOTS, QUANTIZER_SLOTS, SLOTS
from qsae_core.results.beginning import changes
from qsae_core.results.run import find_runs
from qsae_core.training.run import train
from qsae_core.training.watcher import Watcher

if TYPE_CHECKING:
    from qsae_core.plugins.records import Plugins
    from qsae_core.registry import Registry

BASELINES = {
    "random": "random dictionary, same L0",
    "frozen-decoder": "random decoder, trained encoder",
    "other-seed": "in float, other initial weights",
}
"""Name -> what a table calls it."""
SEEDS = 2**32
"""How many there are."""
OF = "baseline_of"
"""Key of an artifact's ``source``: the ``identity`` of the coder whose baseline it is."""


def baseline(
    name: str, path: pathlib.Path, kept: pathlib.Path, plugins: Plugins, *, device: str, watcher: Watcher
) -> pathlib.Path:
    """The folder of a stored coder's baseline, which is made if it is not there or of another coder.

    Args:
        name: of ``BASELINES``.
        path: the coder, or one for each layer, with a record of its data.
        kept: the folder for all its baselines.
        device: as ``resolve_device`` gives it.
        watcher: is told of what takes time.

    Raises:
        ConfigError: if there is none of that name, or none for such a coder; if its data is not known.
        QsaeError: as making a coder, and training, raise it.
    """
    if name not in BASELINES:
        raise ConfigError(f"there is no baseline {name!r}", where="--baseline", allowed=", ".join(BASELINES))
    folder = places.stored_folder(path)
    config = recorded_config(folder, plugins.registry)
    if name == "frozen-decoder":
        message = f"training the same coder with a random decoder that stays as it is, for {kept / name}"
        return _trained(config, {"freeze_decoder": True}, kept / name, plugins, watcher, message)
    if name == "other-seed":
        config = recorded_config(twin_folder(folder) or folder, plugins.registry)
        changed = {"init_seed": (config.init_seed + 1) % SEEDS}
        message = f"training the same coder in float from other initial weights, for {kept / name}"
        return _trained(config, changed, kept / name, plugins, watcher, message)
    place, identity = kept / name, places.identity(folder)
    if not _is_of(place, identity):
        watcher.message("making a random dictionary that fires as often, from the coder's training data")
        _make_random(folder, place, identity, config, plugins, device)
    return place


def _is_of(place: pathlib.Path, identity: str) -> bool:
    """Whether a whole baseline of that coder is there."""
    try:
        places.identity(place)
        found: bool = places.stored_description(place)["source"].get(OF) == identity
    except (ArtifactError, OSError):
        return False
    return found


def _make_random(
    folder: pathlib.Path,
    place: pathlib.Path,
    identity: str,
    config: RunConfig,
    plugins: Plugins,
    device: str,
) -> None:
    registry = plugins.registry
    several = (folder / places.MEMBERS).is_file()
    folders: dict[str | None, pathlib.Path] = {None: folder}
    if several:
        folders = {layer: one for layer, one in places.member_folders(folder).items()}
    coders = {layer: artifact.load(one, device=device, registry=registry) for layer, one in folders.items()}
    dense = _random_dictionaries(coders, folder, config, registry, device)
    forms = {layer: Checkpoint(dense[layer], kind=_kind(coder)) for layer, coder in coders.items()}
    made = {layer: compose_checkpoint(form, registry, str(place)) for layer, form in forms.items()}
    sources = {
        layer: {**places.stored_description(one)["source"], OF: identity} for layer, one in folders.items()
    }
    stored = _described(next(iter(forms.values())), config, registry)
    whole = as_one(made)
    if isinstance(whole, CoderSet):
        save_set(whole, place, stored, registry, {str(layer): source for layer, source in sources.items()})
    else:
        artifact.save(whole, place, stored, registry, sources[None])


def _random_dictionaries(
    coders: Mapping[str | None, MatrixCoder],
    folder: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    device: str,
) -> dict[str | None, DenseForm]:
    """Layer -> its own, from the same vectors of the training stream; None: of the only coder."""
    opened = compose_data(config, registry, device=device)
    try:
        data = data_of(as_one(coders), opened, folder, places.stored_description(folder))
        sample = data.next_batch(config.train.statistics_tokens)
    finally:
        opened.close()
    found = {}
    for number, (layer, coder) in enumerate(coders.items()):
        batch = sample if layer is None else sample.layer(number)
        found[layer] = random_dictionary(coder, batch, config.run.seed)
    return found


def _kind(coder: MatrixCoder) -> Literal["sae", "transcoder"]:
    return "sae" if coder.is_autoencoder else "transcoder"


def _described(form: Checkpoint, config: RunConfig, registry: Registry) -> RunConfig:
    """The configuration that composes a baseline, with the data and the evaluations of the trained coder."""
    tree = {key: value for key, value in config.to_dict().items() if key not in (*CODER_SLOTS, *PART_SLOTS)}
    tree.pop("versions")
    return resolve([checked_layer({**tree, **blocks(form, registry)}, "the baseline")], registry)


def _trained(
    config: RunConfig,
    changed: dict[str, Any],
    kept: pathlib.Path,
    plugins: Plugins,
    watcher: Watcher,
    message: str,
) -> pathlib.Path:
    """The run without quantizers, and with ``changed`` in its section ``train``, which is trained to its end
    if it is not there; an interrupted one is taken up again.

    Args:
        message: what the watcher is told where anything is trained.
    """
    asked = _asked(config, changed, kept, plugins.registry)
    for run in find_runs(kept.parent):
        if run.path.parents[1] != kept:
            continue
        same = not changes(run, asked)
        if run.finished and same:
            return run.path
        how = "resume" if same and run.resume_states() else "overwrite"
        asked = dataclasses.replace(asked, run=asked.run.model_copy(update={how: True}))
    watcher.message(message)
    return train(asked, plugins, watcher).path


def _asked(config: RunConfig, changed: dict[str, Any], kept: pathlib.Path, registry: Registry) -> RunConfig:
    components = dict(config.components)
    for slot in (slot for slot in QUANTIZER_SLOTS if slot in components):
        name = SLOTS[slot].default
        assert name is not None
        components[slot] = Block(name, registry.get(SLOTS[slot].kind, name).config())
    settings = {"out": str(kept.parent), "name": kept.name, "compare_float": False, "save_float": False}
    settings |= {"overwrite": False, "resume": False}
    return dataclasses.replace(
        config,
        components=components,
        evaluate=(),
        trackers=(),
        train=config.train.model_copy(update={**changed, "latent_parallel": 1}),
        run=config.run.model_copy(update=settings),
    )
