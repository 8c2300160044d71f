"""The options that choose components and files, and what the command line says as layers of configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from qsae_core.config.draft import Draft, DraftConfig
from qsae_core.config.layers import Layer, check_section, flag, parse_yaml
from qsae_core.errors import ConfigError
from qsae_core.kinds import LIST_SLOTS, SLOTS

if TYPE_CHECKING:
    from qsae_core.registry import Registry

_LIST_HELP = {
    "metrics": "what is measured; repeatable, replaces the list; all: every installed one",
    "evaluate": "an evaluation of the trained coder; repeatable, replaces the list; all: every installed one",
    "trackers": "where the run's numbers are sent; repeatable",
}


@dataclass(frozen=True)
class Scope:
    """Which places of a run a command has options for.

    Attributes:
        slots: of ``kinds.SLOTS``.
        lists: of ``kinds.LIST_SLOTS``.
        sections: of ``train`` and ``run``.
        needs_coder: whether the command line must choose an SAE or a transcoder.
        config_file: whether the command takes ``--config``.
    """

    slots: tuple[str, ...] = tuple(SLOTS)
    lists: tuple[str, ...] = tuple(LIST_SLOTS)
    sections: tuple[str, ...] = ("train", "run")
    needs_coder: bool = True
    config_file: bool = True

    @property
    def places(self) -> tuple[str, ...]:
        """Every section of a configuration that the command's flags may change."""
        return (*self.slots, *self.lists, *self.sections)

    def covers(self, draft: Draft) -> bool:
        """Whether a draft's fields are options of the command."""
        return draft.path[0] in self.places


class _ComponentName(click.ParamType):
    name = "name"

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self.names if name.startswith(incomplete)]


def choice_options(scope: Scope, draft: DraftConfig, registry: Registry) -> list[click.Option]:
    """``--config``, ``--set``, and a flag for each slot and list; the draft says what each defaults to."""
    options = []
    if scope.config_file:
        text = "YAML file, or the config.json of a run; repeatable, later ones win."
        options.append(click.Option(["--config", "config"], metavar="FILE", multiple=True, help=text))
    text = "Set any option, nested ones too; VALUE is YAML. Repeatable."
    options.append(click.Option(["--set", "set_"], metavar="PLACE.OPTION=VALUE", multiple=True, help=text))
    for name in scope.slots:
        slot = SLOTS[name]
        chosen = draft.slots[name].spec if name in draft.slots else None
        help_ = _choice_help(slot.help, registry.names(slot.kind), [chosen.name] if chosen else [])
        type_ = _ComponentName(registry.names(slot.kind))
        options.append(click.Option([flag(name), f"slot_{name}"], metavar="NAME", type=type_, help=help_))
    for section in scope.lists:
        names = registry.names(LIST_SLOTS[section])
        chosen_names = [d.spec.name for d in draft.lists.get(section, []) if d.spec]
        options.append(
            click.Option(
                [flag(section), f"list_{section}"],
                metavar="NAME",
                multiple=True,
                type=_ComponentName(names),
                help=_choice_help(_LIST_HELP[section], names, chosen_names),
            )
        )
    return options


def _choice_help(text: str, installed: Sequence[str], chosen: Sequence[str]) -> str:
    default = f"default: {', '.join(chosen)}; " if chosen else ""
    return f"{text}  [{default}installed: {', '.join(installed) or 'none'}]"


def choice_layer(values: Mapping[str, Any], scope: Scope) -> Layer:
    """The layer of the slot flags and list flags, from parsed values by parameter name."""
    slots = {name: values[f"slot_{name}"] for name in scope.slots if values.get(f"slot_{name}")}
    lists = {name: list(values[f"list_{name}"]) for name in scope.lists if values.get(f"list_{name}")}
    return Layer({**slots, **lists}, "command line", "flags")


def field_layer(given: Mapping[tuple[str, ...], Any]) -> Layer:
    """The layer of the fields' flags: path -> value."""
    tree: dict[str, Any] = {}
    for path, value in given.items():
        _put(tree, path, value)
    return Layer(tree, "command line", "flags")


def set_layer(
    texts: Sequence[str], scope: Scope, taken: Collection[tuple[str, ...]] = (), flag_name: str = "--set"
) -> Layer:
    """The layer of ``--set a.b=c``, or of another flag that takes such texts.

    Raises:
        ConfigError: for a text without ``=``, a place that the command has not, or one that is set twice
            (``taken`` are those that flags have set).
    """
    example = "sparsity.k=32" if "sparsity" in scope.places else "data.use=lm"
    tree: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        path = tuple(part.strip().replace("-", "_") for part in key.split("."))
        if not equals or not all(path):
            raise ConfigError(
                f"PLACE.OPTION=VALUE is needed (got {text!r})",
                where=flag_name,
                next=f"{flag_name} {example}",
            )
        check_section(path[0], f"{flag_name} {key}", scope.places)
        if path in taken:
            raise ConfigError(f"{key} is given by {flag(*path)} as well", where=f"{flag_name} {key}")
        if not _put(tree, path, parse_yaml(value, f"{flag_name} {key}")):
            raise ConfigError("is set twice", where=f"{flag_name} {key}")
    return Layer(tree, flag_name, "set")


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> bool:
    """Put a value where its path says; False if something is there."""
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            return False
    if path[-1] in tree:
        return False
    tree[path[-1]] = value
    return True
