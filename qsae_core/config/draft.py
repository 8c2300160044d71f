"""A run before its options are validated: components, what somebody gave them, and where it was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qsae_core.component import ComponentConfig, ComponentSpec, alternatives
from qsae_core.config.settings import RunSettings, TrainConfig
from qsae_core.errors import ConfigError, PluginError
from qsae_core.kinds import CODER_SLOTS

if TYPE_CHECKING:
    from qsae_core.registry import Registry


@dataclass
class Draft:
    """Options of one component, or of ``train`` or ``run``, before they are validated.

    Attributes:
        path: where it stands: ``("sparsity",)``, ``("metrics", "reconstruction")``, ``("train",)``.
        schema: what the options must fit.
        spec: the chosen component; None for ``train`` and ``run``.
        options: what somebody gave; the schema's own defaults are not in it.
        origins: option -> the place that gave it, as errors show it.
        chosen_at: the place that chose the component.
    """

    path: tuple[str, ...]
    schema: type[ComponentConfig]
    spec: ComponentSpec | None = None
    options: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    chosen_at: str = "default"

    @property
    def title(self) -> str:
        """``sparsity 'topk'``, or the section's name."""
        return f"{self.spec.kind} '{self.spec.name}'" if self.spec else ".".join(self.path)

    def give(self, options: Mapping[str, Any], place: Callable[[str], str]) -> None:
        """Set the options of one layer, over what layers below it gave: of the same ones, and of those that
        say the same in another way (``option(instead_of=...)``).

        Args:
            place: option -> where the layer gives it.
        """
        for pair in alternatives(self.schema):
            if any(options.get(name) is not None for name in pair):
                for name in pair:
                    self.options.pop(name, None)
                    self.origins.pop(name, None)
        for option, value in options.items():
            self.options[option], self.origins[option] = value, place(option)

    def place(self, option: str) -> str:
        """Where an option was given, or where it would be."""
        return self.origins.get(option, ".".join((*self.path, option)))


@dataclass
class DraftConfig:
    """A whole run before validation; ``slots`` lacks what the coder has no part for."""

    slots: dict[str, Draft] = field(default_factory=dict)
    lists: dict[str, list[Draft]] = field(default_factory=dict)
    train: Draft = field(default_factory=lambda: Draft(("train",), TrainConfig))
    run: Draft = field(default_factory=lambda: Draft(("run",), RunSettings))
    notes: list[str] = field(default_factory=list)

    @property
    def coder(self) -> Draft | None:
        """The SAE or the transcoder, if one is chosen yet."""
        return next((self.slots[slot] for slot in CODER_SLOTS if slot in self.slots), None)

    def drafts(self) -> list[Draft]:
        """Every component and section, coder first."""
        return [
            *self.slots.values(),
            *(d for drafts in self.lists.values() for d in drafts),
            self.train,
            self.run,
        ]


def lookup(registry: Registry, kind: str, name: str, place: str) -> ComponentSpec:
    """The component that was chosen at ``place``; an error about it says so."""
    try:
        return registry.get(kind, name)
    except PluginError as error:
        error.where = error.where or place
        raise


def split_block(block: Any, place: str) -> tuple[str | None, dict[str, Any]]:
    """``"topk"`` or ``{"use": "topk", "k": 32}`` -> the component's name, if any, and its options."""
    if isinstance(block, str):
        return block, {}
    if not isinstance(block, Mapping):
        raise ConfigError(
            f"a component's name or a mapping is needed here (got {block!r})",
            where=place,
            allowed="NAME, or {use: NAME, option: value}",
        )
    use = block.get("use")
    if use is not None and not isinstance(use, str):
        raise ConfigError(f"'use' takes a component's name (got {use!r})", where=place)
    return use, {str(key): value for key, value in block.items() if key != "use"}
