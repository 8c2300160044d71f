"""RunConfig -> live objects: data, coder, metrics. The only importer of component targets."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, cast

import torch

from qsae_core.coder_options import CoderConfig
from qsae_core.coders.level_rules import LevelRules
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.compose.part_factories import NoParts, PartFactory, located
from qsae_core.config.draft import Draft
from qsae_core.config.errors import validate
from qsae_core.config.run import Block, RunConfig, read_coder
from qsae_core.contracts.coder import CoderShape, Parts
from qsae_core.contracts.data import DataSource
from qsae_core.contracts.evaluation import Evaluation
from qsae_core.contracts.format import CheckpointFormat
from qsae_core.contracts.kernel_set import KernelSet
from qsae_core.contracts.metric import Metric
from qsae_core.contracts.tracker import Tracker
from qsae_core.errors import ConfigError, QsaeError
from qsae_core.kinds import CODER_SLOTS, SLOTS
from qsae_core.registry import Registry


def compose_data(config: RunConfig, registry: Registry, *, device: str = "cpu") -> DataSource:
    """The run's data source, under the run's seed.

    Args:
        device: where a language model behind the data runs (``auto`` is resolved by the caller).

    Raises:
        DataError: from the source, if its files or model cannot be read as asked.
    """
    return open_data(config.data, registry, seed=config.run.seed, device=device, origins=config.origins)


def open_data(
    block: Block,
    registry: Registry,
    *,
    seed: int = 0,
    device: str = "cpu",
    origins: Mapping[str, str] | None = None,
) -> DataSource:
    """The data source that a block describes.

    Args:
        origins: as ``RunConfig.origins``.

    Raises:
        DataError: as ``compose_data``.
    """
    target = registry.load_target(registry.get("data", block.use))
    with located(("data",), block, origins or {}):
        source: DataSource = target(block.options, seed=seed, device=device)
        return source


def compose_coder(
    config: RunConfig | Mapping[str, Any],
    registry: Registry,
    shape: CoderShape,
    *,
    place: str = "coder",
    level: int | None = None,
) -> MatrixCoder:
    """The coder with its parts.

    Args:
        config: a run, whose ``init_seed`` is given to the global generator first; or what
            ``RunConfig.coder_dict`` gave, for a stored coder, which leaves the global generator as it is.
        registry: where components come from.
        shape: widths of the data; an SAE needs ``d_in == d_out`` and as many layers in as out.
        place: what errors call a stored coder (its file).
        level: as large as a stored coder's level is, where it nests latents; None: whole.

    Raises:
        ConfigError: if an SAE is to map between different widths, or a constructor refuses its options; for
            a run also if a level has fewer latents than its sparsity rule is to keep.
        PluginError: if a component is not installed or cannot be imported.
    """
    if isinstance(config, RunConfig):
        config = config.for_width(shape.d_in, shape.layers_in)
        torch.manual_seed(config.init_seed)
        coder = _build_coder(config.components, config.origins, registry, shape, config.data.use)
        for rules in (module for module in coder.modules() if isinstance(module, LevelRules)):
            with located(("sparsity",), config.components["sparsity"], config.origins):
                rules.check_counts()
        return coder
    blocks = read_coder(config, registry, place)
    if level is not None:
        slot = next(slot for slot in CODER_SLOTS if slot in blocks)
        options = cast(CoderConfig, blocks[slot].options)
        if options.prefixes() is not None:
            blocks = {**blocks, slot: Block(blocks[slot].use, options.first_groups(level))}
    with torch.random.fork_rng(devices=[]):
        return _build_coder(blocks, {}, registry, shape)


def coder_class(config: RunConfig, registry: Registry) -> type[MatrixCoder]:
    """The class of a run's SAE or transcoder."""
    target: type[MatrixCoder] = registry.load_target(
        registry.get(SLOTS[config.coder_slot].kind, config.coder.use)
    )
    return target


def that_split(kind: str, registry: Registry) -> list[str]:
    """Names of installed SAEs or transcoders that can be trained in parts."""
    found = []
    for name in registry.names(kind):
        with contextlib.suppress(QsaeError):  # one that cannot be imported
            target: type[MatrixCoder] = registry.load_target(registry.get(kind, name))
            if target.refusal_to_split() is None:
                found.append(name)
    return found


def compose_metrics(config: RunConfig, registry: Registry) -> dict[str, Metric]:
    """Name -> a fresh metric, in the config's order."""
    return _build_list("metrics", "metric", config.metrics, config, registry)


def compose_evaluations(config: RunConfig, registry: Registry) -> dict[str, Evaluation]:
    """Name -> evaluation, in the config's order."""
    return _build_list("evaluate", "evaluation", config.evaluate, config, registry)


def compose_trackers(config: RunConfig, registry: Registry) -> dict[str, Tracker]:
    """Name -> tracker, in the config's order."""
    return _build_list("trackers", "tracker", config.trackers, config, registry)


def compose_kernel_set(name: str, registry: Registry) -> KernelSet:
    """A kernel set with its default options; whether it works here is not yet known."""
    spec = registry.get("kernel", name)
    kernel_set: KernelSet = registry.load_target(spec)(spec.config())
    return kernel_set


def compose_format(
    name: str, registry: Registry, options: Mapping[str, Any] | None = None
) -> CheckpointFormat:
    """A checkpoint format, with its default options but for those that are given.

    Raises:
        ConfigError: if the format has no such option, or an option does not fit.
        PluginError: if there is no such format.
    """
    spec = registry.get("format", name)
    given = Draft(("format",), spec.config, spec, dict(options or {}))
    form: CheckpointFormat = registry.load_target(spec)(validate(given))
    return form


def _build_list(
    section: str, kind: str, blocks: tuple[Block, ...], config: RunConfig, registry: Registry
) -> dict[str, Any]:
    built = {}
    for block in blocks:
        target = registry.load_target(registry.get(kind, block.use))
        with located((section, block.use), block, config.origins):
            built[block.use] = target(block.options)
    return built


def _build_coder(
    blocks: Mapping[str, Block],
    origins: Mapping[str, str],
    registry: Registry,
    shape: CoderShape,
    data: str | None = None,
) -> MatrixCoder:
    slot = next(slot for slot in CODER_SLOTS if slot in blocks)
    block = blocks[slot]
    if slot == "sae" and (shape.d_in, shape.layers_in) != (shape.d_out, shape.layers_out):
        source, goal = _width(shape.layers_in, shape.d_in), _width(shape.layers_out, shape.d_out)
        raise ConfigError(
            f"SAE '{block.use}' reconstructs its input, but the data goes from {source} to {goal}",
            where="data",
            allowed="input and target of one width; a transcoder where they differ",
            next=f"--transcoder {' | '.join(registry.names('transcoder')) or 'NAME'}, or other data",
        )
    target = registry.load_target(registry.get(SLOTS[slot].kind, block.use))
    if target.reads_layers != (shape.layers_in > 1):
        data_source = registry.load_target(registry.get("data", data)) if data else DataSource
        raise _other_layers(f"{slot} '{block.use}'", target, data_source, shape.layers_in)
    parts = Parts(
        **{name: _factory(name, blocks.get(name), origins, registry, slot, block) for name in Parts._fields}
    )
    with located((slot,), block, origins):
        coder: MatrixCoder = target(block.options, shape, parts)
    coder.component_name = block.use  # type: ignore[assignment]  # for messages: ``name_of``
    return coder


def _other_layers(
    title: str, target: type[MatrixCoder], source: type[DataSource], layers: int
) -> ConfigError:
    """The error for data of one layer and a coder of several, or the other way round."""
    if target.reads_layers:
        wanted, allowed = "several layers at once", "vectors [B, L, d] with L of at least 2"
        hint = source.for_several_layers
    else:
        wanted, allowed = "one layer", "vectors [B, d]; or a coder that reads several layers"
        hint = f"{source.for_one_layer or 'other data'}; --per-layer for a coder of each layer"
    return ConfigError(
        f"{title} reads {wanted}, and the data gives {'one' if layers == 1 else layers}",
        where="data",
        allowed=allowed,
        next=f"{hint or 'other data'}; or another coder",
    )


def _width(layers: int, d: int) -> str:
    return f"d={d}" if layers == 1 else f"{layers} layers of d={d}"


def _factory(
    slot: str,
    block: Block | None,
    origins: Mapping[str, str],
    registry: Registry,
    coder_slot: str,
    coder: Block,
) -> PartFactory | NoParts:
    """Builds one part for each matrix or group of latents that the coder asks for."""
    if block is None:
        return NoParts(slot, f"{coder_slot} '{coder.use}'")
    target = registry.load_target(registry.get(SLOTS[slot].kind, block.use))
    return PartFactory(slot, block, target, dict(origins))
