"""RunConfig: everything that a run is, validated, with every default filled in. Imports no torch."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import qsae_core
from qsae_core.component import ComponentConfig, ComponentSpec, replaced
from qsae_core.config.draft import Draft, DraftConfig, lookup, split_block
from qsae_core.config.errors import validate
from qsae_core.config.layers import Layer, check_section, checked_layer
from qsae_core.config.merge import merge
from qsae_core.config.settings import RunSettings, TrainConfig
from qsae_core.config.sizes import check_k, settled
from qsae_core.errors import ConfigError
from qsae_core.kinds import CODER_SLOTS, LIST_SLOTS, PART_SLOTS, SLOTS

if TYPE_CHECKING:
    from qsae_core.registry import Registry

__all__ = ["Block", "RunConfig", "RunSettings", "TrainConfig", "resolve"]


@dataclass(frozen=True)
class Block:
    """A chosen component and its options.

    Attributes:
        use: the component's name.
        options: an instance of the component's own config class.
    """

    use: str
    options: ComponentConfig

    def to_dict(self) -> dict[str, Any]:
        """``{"use": name, option: JSON value, ...}``, every option included, but for those in whose place
        another one is given (``option(instead_of=...)``)."""
        return {"use": self.use, **self.options.model_dump(mode="json", exclude=replaced(self.options))}


@dataclass(frozen=True)
class RunConfig:
    """A resolved run.

    Attributes:
        components: slot of ``kinds.SLOTS`` -> block; exactly one of ``sae`` and ``transcoder``, and no slot
            that the coder has no part for.
        metrics: what is measured while training and at the end.
        evaluate: evaluations of the trained coder.
        trackers: where a run's numbers are sent.
        train: the loop.
        run: seed, device, places.
        versions: python, qsae, torch, and every distribution that provides one of the components -> version.
        notes: what the user should be told about how this was resolved; not part of equality.
        origins: dotted key -> the place that gave it (``my.yaml: sparsity.k``); not part of equality.
    """

    components: Mapping[str, Block]
    metrics: tuple[Block, ...] = ()
    evaluate: tuple[Block, ...] = ()
    trackers: tuple[Block, ...] = ()
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunSettings = field(default_factory=RunSettings)
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def coder_slot(self) -> str:
        """``"sae"`` or ``"transcoder"``."""
        return next(slot for slot in CODER_SLOTS if slot in self.components)

    @property
    def coder(self) -> Block:
        """The SAE or the transcoder."""
        return self.components[self.coder_slot]

    @property
    def data(self) -> Block:
        """The data source."""
        return self.components["data"]

    @property
    def init_seed(self) -> int:
        """Of the initial weights: ``train.init_seed``, or where that is not given ``run.seed``, of which all
        other draws are (the order of the data first of all)."""
        return self.run.seed if self.train.init_seed is None else self.train.init_seed

    def for_width(self, d_in: int, layers_in: int = 1) -> RunConfig:
        """This run on data of such a width, and of so many layers: sizes that were given beside it
        (``expansion``), or as a share of the latents (``k_share``), have become numbers, as its record has
        them.

        Raises:
            ConfigError: if such a number does not fit the other options.
        """
        before = {slot: b.options for slot, b in self.components.items()}
        options = settled(before, self.origins, d_in, layers_in)
        blocks = {slot: Block(b.use, options[slot]) for slot, b in self.components.items()}
        return replace(self, components=blocks)

    def coder_dict(self) -> dict[str, dict[str, Any]]:
        """Slot -> block of the coder and its parts, from which ``compose.compose_coder`` builds it again."""
        kept = (*CODER_SLOTS, *PART_SLOTS)
        return {slot: block.to_dict() for slot, block in self.components.items() if slot in kept}

    def to_dict(self) -> dict[str, Any]:
        """JSON values with every default filled in; ``from_dict`` gives an equal RunConfig back.

        ``run.overwrite`` and ``run.resume`` are left out: they are about one start, not about the run, and
        repeating a run from its record must not overwrite anything.
        """
        return {
            **{slot: block.to_dict() for slot, block in self.components.items()},
            **{section: [b.to_dict() for b in getattr(self, section)] for section in LIST_SLOTS},
            "train": self.train.model_dump(mode="json"),
            "run": self.run.model_dump(mode="json", exclude={"overwrite", "resume"}),
            "versions": dict(self.versions),
        }

    @staticmethod
    def from_dict(tree: Mapping[str, Any], registry: Registry, name: str = "config") -> RunConfig:
        """The RunConfig that a tree of YAML or JSON values describes; ``name`` is what errors call it."""
        return resolve([checked_layer(tree, name)], registry)


def resolve(layers: Sequence[Layer], registry: Registry) -> RunConfig:
    """Merge the layers (lowest precedence first) over all defaults and validate the result.

    Raises:
        ConfigError: for an option that does not fit, with its place; for a combination that a coder refuses.
        PluginError: for a component that is not installed.
    """
    draft = merge(layers, registry)
    _check_refusals(draft)
    components = {slot: _block(draft.slots[slot]) for slot in SLOTS if slot in draft.slots}
    lists = {section: tuple(_block(d) for d in drafts) for section, drafts in draft.lists.items()}
    origins = {
        ".".join((*d.path, option)): place for d in draft.drafts() for option, place in d.origins.items()
    }
    check_k({slot: block.options for slot, block in components.items()}, origins)
    found = versions((d.spec for d in draft.drafts() if d.spec), registry)
    return RunConfig(
        components=components,
        **lists,
        train=cast(TrainConfig, validate(draft.train)),
        run=cast(RunSettings, validate(draft.run)),
        versions=found,
        notes=(*draft.notes, *(note for layer in layers for note in _version_notes(layer, found))),
        origins=origins,
    )


def read_coder(tree: Mapping[str, Any], registry: Registry, place: str) -> dict[str, Block]:
    """The blocks that ``RunConfig.coder_dict`` wrote; no coder's default part is filled in.

    Raises:
        ConfigError: if an entry or an option does not fit what is installed; ``place`` says whose it is.
        PluginError: if a component is not installed.
    """
    blocks = {}
    for slot, block in tree.items():
        check_section(slot, place, (*CODER_SLOTS, *PART_SLOTS))
        blocks[slot] = read_block(slot, block, registry, place)
    if sum(slot in blocks for slot in CODER_SLOTS) != 1:
        raise ConfigError("describes not exactly one SAE or transcoder", where=place)
    return blocks


def read_block(slot: str, block: Any, registry: Registry, place: str) -> Block:
    """One block that ``Block.to_dict`` wrote.

    Args:
        slot: of ``kinds.SLOTS``.
        place: whose it is, for errors.

    Raises:
        ConfigError, PluginError: as ``read_coder``.
    """
    layer = Layer({slot: block}, place)
    use, options = split_block(block, layer.place(slot))
    if use is None:
        raise ConfigError("a block without 'use'", where=layer.place(slot))
    spec = lookup(registry, SLOTS[slot].kind, use, layer.place(slot))
    origins = {option: layer.place(slot, option) for option in options}
    return _block(Draft((slot,), spec.config, spec, options, origins))


def resolve_data(layers: Sequence[Layer], registry: Registry) -> tuple[Block, RunSettings]:
    """What the layers say of the data and of how to run, where no coder is asked for.

    Raises:
        ConfigError, PluginError: as ``resolve``.
    """
    draft = merge(layers, registry, coder_required=False)
    return _block(draft.slots["data"]), cast(RunSettings, validate(draft.run))


def versions(specs: Iterable[ComponentSpec], registry: Registry) -> dict[str, str]:
    """Versions of python, qsae, torch, and of the distributions that provide these components."""
    found = {"python": platform.python_version(), "qsae": qsae_core.__version__, "torch": _version("torch")}
    provided = dict(registry.provider(spec.kind, spec.name) for spec in specs)
    return found | {name: provided[name] for name in sorted(provided)}


@functools.cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _version_notes(layer: Layer, found: Mapping[str, str]) -> list[str]:
    recorded = layer.tree.get("versions")
    if not isinstance(recorded, Mapping):
        return []
    return [
        f"{layer.name} was written with {name} {version}, and {name} {found[name]} is here: "
        "the run may not repeat exactly"
        for name, version in recorded.items()
        if name in found and found[name] != version
    ]


def _block(draft: Draft) -> Block:
    assert draft.spec is not None  # only train and run have none
    return Block(draft.spec.name, validate(draft))


def _check_refusals(draft: DraftConfig) -> None:
    coder = draft.coder
    assert coder is not None  # merge requires one
    assert coder.spec is not None
    for slot, part in draft.slots.items():
        assert part.spec is not None
        for kind in (slot, part.spec.kind):
            reason = coder.spec.refuses.get((kind, part.spec.name))
            if reason:
                raise ConfigError(
                    f"{coder.title} cannot work with {part.title}: {reason}",
                    where=part.chosen_at if part.chosen_at != "default" else slot,
                    next=f"qsae describe {coder.spec.kind} {coder.spec.name}",
                )
