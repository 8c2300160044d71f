"""Merging of lists of components (``metrics``, ``evaluate``, ``trackers``) and of ``train`` and ``run``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from qsae_core.config.draft import Draft, lookup, split_block
from qsae_core.config.layers import Layer
from qsae_core.errors import ConfigError, did_you_mean
from qsae_core.kinds import KINDS, LIST_DEFAULTS

if TYPE_CHECKING:
    from qsae_core.registry import Registry


ALL = "all"


def merge_list(
    section: str, kind: str, layers: Sequence[Layer], registry: Registry, notes: list[str]
) -> list[Draft]:
    """A list replaces the list of the layers below; a mapping ``{name: {option: value}}`` changes options.
    ``all`` in a list stands for every installed one that the list does not name."""
    drafts: dict[str, Draft] = {}
    for name in LIST_DEFAULTS[section]:
        if name in registry.names(kind):
            spec = registry.get(kind, name)
            drafts[name] = Draft((section, name), spec.config, spec)
        elif all(layer.tree.get(section) is None for layer in layers):
            notes.append(f"{kind} '{name}' is not installed and is left out of {section}")
    for layer in layers:
        entries = layer.tree.get(section)
        if isinstance(entries, (str, list, tuple)):
            listed = [entries] if isinstance(entries, str) else entries
            drafts = _list_entries(
                section, kind, _without_all(section, listed, registry, kind), layer, registry
            )
        elif isinstance(entries, Mapping):
            for name, options in entries.items():
                _change_entry(drafts, section, str(name), options, layer)
        elif entries is not None:
            raise ConfigError(
                f"a list of {KINDS[kind].title} is needed here (got {entries!r})",
                where=layer.place(section),
                allowed="[NAME, {use: NAME, option: value}]",
            )
    return list(drafts.values())


def _without_all(section: str, entries: Sequence[Any], registry: Registry, kind: str) -> list[Any]:
    """The entries, and in the place of ``all`` the installed ones that are missing, usual ones first."""
    if ALL not in entries:
        return list(entries)
    named = [entry.get("use") if isinstance(entry, Mapping) else entry for entry in entries if entry != ALL]
    usual = [name for name in LIST_DEFAULTS[section] if name in registry.names(kind)]
    more = [name for name in dict.fromkeys([*usual, *registry.names(kind)]) if name not in named]
    at = list(entries).index(ALL)
    return [*entries[:at], *more, *entries[at + 1 :]]


def _list_entries(
    section: str, kind: str, entries: Sequence[Any], layer: Layer, registry: Registry
) -> dict[str, Draft]:
    drafts: dict[str, Draft] = {}
    for entry in entries:
        use, options = split_block(entry, layer.place(section))
        if use is None:
            raise ConfigError(f"an entry lacks 'use' (got {entry!r})", where=layer.place(section))
        if use in drafts:
            raise ConfigError(f"{kind} '{use}' is listed twice", where=layer.place(section))
        spec = lookup(registry, kind, use, layer.place(section))
        drafts[use] = Draft((section, use), spec.config, spec, chosen_at=layer.place(section))
        drafts[use].give(options, partial(layer.place, section, use))
    return drafts


def _change_entry(drafts: Mapping[str, Draft], section: str, name: str, options: Any, layer: Layer) -> None:
    if name not in drafts:
        raise ConfigError(
            f"'{name}' is not among the chosen {section}{did_you_mean(name, list(drafts))}",
            where=layer.place(section, name),
            allowed=", ".join(drafts) or "(none chosen)",
        )
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"a mapping of options is needed here (got {options!r})", where=layer.place(section, name)
        )
    given = {str(option): value for option, value in options.items()}
    drafts[name].give(given, partial(layer.place, section, name))


def merge_section(draft: Draft, layers: Sequence[Layer]) -> None:
    """Give a draft of ``train`` or ``run`` what the layers say, the lowest first."""
    section = draft.path[0]
    for layer in layers:
        options = layer.tree.get(section)
        if options is None:
            continue
        if not isinstance(options, Mapping):
            raise ConfigError(
                f"a mapping of options is needed here (got {options!r})",
                where=layer.place(section),
                allowed=", ".join(draft.schema.model_fields),
            )
        given = {str(option): value for option, value in options.items()}
        draft.give(given, partial(layer.place, section))
