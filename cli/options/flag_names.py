"""Which flag means which field: spellings, contested ones, and flags of what is not chosen."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qsae_cli.options.field_options import NO_VALUE, FieldOption
from qsae_core.component import ComponentConfig, ComponentSpec, EvaluationConfig
from qsae_core.config.draft import Draft
from qsae_core.config.errors import flag_aliases
from qsae_core.config.layers import LIST_FLAGS, flag
from qsae_core.config.schema import field_schemas
from qsae_core.errors import ConfigError
from qsae_core.kinds import LIST_SLOTS, SLOTS

if TYPE_CHECKING:
    from qsae_core.registry import Registry


MOST_TITLES = 2
"""With more components of one kind, an error names the flags that choose them once."""


@dataclass(frozen=True)
class FieldFlags:
    """The flags of the chosen components.

    Attributes:
        options: one for each field that fits on a command line.
        ambiguous: short spelling that several fields have -> their long ones; it works for none of them.
    """

    options: list[FieldOption]
    ambiguous: Mapping[str, list[str]]

    def spellings(self) -> set[str]:
        """Every flag that works, with its dashes."""
        return {spelling for o in self.options for spelling in (*o.opts, *o.secondary_opts)}


@dataclass(frozen=True)
class Owner:
    """A field of an installed component that a flag could mean; ``places``: slots or lists that it fits."""

    spec: ComponentSpec
    field: str
    places: tuple[str, ...]

    @property
    def title(self) -> str:
        """``quantizer 'lsq'``."""
        return f"{self.spec.kind} '{self.spec.name}'"

    @property
    def is_flag(self) -> bool:
        """Whether its values fit on a command line; a list is given by ``--set`` or a file."""
        return field_schemas(self.spec.config)[self.field].is_flag

    def choosing_flags(self) -> list[str]:
        """``--quantizer lsq``, ``--encoder-quantizer lsq``."""
        return [f"{flag(place)} {self.spec.name}" for place in self.places]


def field_flags(drafts: Iterable[Draft], reserved: Collection[str]) -> FieldFlags:
    """Name the fields of drafts.

    ``train`` and ``run`` always keep their short spellings, so that ``--seed`` means one thing in every run;
    fields of list entries (metrics, evaluations) have long ones alone, so that adding one takes none away;
    but ``--NAME-every`` is how often an evaluation runs in training.

    Args:
        drafts: chosen components and sections.
        reserved: flags of the command itself, with dashes; no field gets them.
    """
    drafts = list(drafts)
    of_sections = {
        s for d in drafts if d.spec is None for f in d.schema.model_fields for s in short_spellings(d, f)
    }
    claims: dict[str, list[str]] = {}
    for draft in drafts:
        for field in draft.schema.model_fields:
            for short in short_spellings(draft, field):
                if f"--{short}" not in reserved and (draft.spec is None or short not in of_sections):
                    claims.setdefault(short, []).append(flag(*draft.path, field))
    options = []
    for draft in drafts:
        for field, schema in field_schemas(draft.schema).items():
            if schema.is_flag:
                long = flag(*draft.path, field)
                own = [s for s in short_spellings(draft, field) if claims.get(s) == [long]]
                options.append(
                    FieldOption(
                        (*draft.path, field),
                        schema,
                        long=long.removeprefix("--"),
                        short=own,
                        description=draft.schema.model_fields[field].description or "",
                        default=_default(draft, field),
                        hide_long=draft.spec is None,
                    )
                )
    return FieldFlags(options, {short: longs for short, longs in claims.items() if len(longs) > 1})


def short_spellings(draft: Draft, field: str) -> list[str]:
    """``["k", "top-k"]``; for a list entry's field none, but ``["samples-every"]`` of how often an evaluation
    runs in training."""
    if len(draft.path) == 1:
        return _short(draft.schema, field)
    return [f"{draft.path[1]}-{field}".replace("_", "-")] if field in _of_training(draft.schema) else []


def _of_training(schema: type[ComponentConfig]) -> Collection[str]:
    """Fields about when an evaluation runs in training, none of what it is."""
    return EvaluationConfig.model_fields if issubclass(schema, EvaluationConfig) else ()


def _short(schema: type[ComponentConfig], field: str) -> list[str]:
    names = [field, *flag_aliases(schema, field)]
    return list(dict.fromkeys(name.replace("_", "-") for name in names))


def _default(draft: Draft, field: str) -> object:
    if field in draft.options:
        return draft.options[field]
    info = draft.schema.model_fields[field]
    return NO_VALUE if info.is_required() else info.get_default(call_default_factory=True, validated_data={})


def owners(spelling: str, registry: Registry) -> list[Owner]:
    """Fields of installed components, chosen or not, that a flag (with its dashes) could mean."""
    head, _, rest = spelling.removeprefix("--").rpartition(".")
    names = {rest, rest.removeprefix("no-")}
    found = []
    for place, kind in [*((slot.name, slot.kind) for slot in SLOTS.values()), *LIST_SLOTS.items()]:
        for spec in registry.specs(kind):
            prefix = flag(place).removeprefix("--") if place in SLOTS else f"{LIST_FLAGS[place]}.{spec.name}"
            if not head and place not in SLOTS:
                fields = [f for f in _of_training(spec.config) if rest == f"{spec.name}-{f}"]
                found += [Owner(spec, field, (place,)) for field in fields]
            if head not in (("", prefix) if place in SLOTS else (prefix,)):
                continue
            fields = [f for f in spec.config.model_fields if names & set(_short(spec.config, f))]
            found += [Owner(spec, field, (place,)) for field in fields]
    merged: dict[tuple[str, str, str], Owner] = {}
    for owner in found:
        key = (owner.spec.kind, owner.spec.name, owner.field)
        before = merged[key].places if key in merged else ()
        merged[key] = Owner(owner.spec, owner.field, (*before, *owner.places))
    return list(merged.values())


def implied_data_source(foreign: Collection[str], registry: Registry) -> str | None:
    """The one installed data source that has all these flags; None if there is none, or more than one.

    Args:
        foreign: flags on the command line that belong to nothing that is chosen so far.
    """
    having = {spelling: _data_sources(spelling, registry) for spelling in foreign}
    having = {spelling: sources for spelling, sources in having.items() if sources}
    common = set.intersection(*having.values()) if having else set()
    return common.pop() if len(common) == 1 else None


def _data_sources(spelling: str, registry: Registry) -> set[str]:
    return {owner.spec.name for owner in owners(spelling, registry) if owner.spec.kind == "data"}


def unknown_flag(
    spelling: str, flags: FieldFlags, known: Collection[str], registry: Registry, places: Collection[str]
) -> ConfigError:
    """The error for a flag that the chosen components do not have: where it belongs, or what was meant.

    Args:
        places: slots and lists that the command has options for.
    """
    longs = flags.ambiguous.get(spelling.removeprefix("--").removeprefix("no-"))
    if longs:
        return _ambiguous(spelling, longs)
    everywhere = owners(spelling, registry)
    found = [owner for owner in everywhere if set(owner.places) & set(places)]
    if everywhere and not found and not closest(spelling, known):
        names = ", ".join(dict.fromkeys(owner.title for owner in everywhere))
        return ConfigError(
            f"{spelling} is an option of {names}, which this command does not change",
            next="--help lists the flags of the chosen components",
        )
    lists = [owner for owner in found if not owner.is_flag]
    if lists:
        place = f"{lists[0].places[0]}.{lists[0].field}"
        titles = " and ".join(owner.title for owner in lists)
        return ConfigError(
            f"{spelling} is an option of {titles}, but no flag: it is a list",
            next=f"--set '{place}=[1, 2, 3]', or {place} in a file for --config",
        )
    if found:
        return ConfigError(f"{spelling} {belonging(found)}")
    meant = closest(spelling, known) or closest(spelling, _installed_flags(registry))
    hint = ""
    if meant:
        hint = f"; did you mean {meant}?" + (
            "" if meant in known else f" It {belonging(owners(meant, registry))}"
        )
    return ConfigError(
        f"unknown flag {spelling}{hint}", next="--help lists the flags of the chosen components"
    )


def _ambiguous(spelling: str, longs: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"{spelling} could be any of {', '.join(longs)}",
        allowed=f"{spelling} where one chosen part alone has it; else the long spellings",
        next=f"give {' VALUE, or '.join(longs)} VALUE, or several of them",
    )


def belonging(found: Sequence[Owner]) -> str:
    """Where a flag belongs and how to choose that: ``belongs to sparsity 'topk'; add --sparsity topk``."""
    if len(found) > MOST_TITLES and len({(owner.spec.kind, owner.places) for owner in found}) == 1:
        names = [owner.spec.name for owner in found]
        choosing = " or ".join(flag(place) for place in found[0].places)
        return f"belongs to {found[0].spec.kind} {', '.join(names)}; add {choosing} with one of them"
    choices = dict.fromkeys(choice for owner in found for choice in owner.choosing_flags())
    return f"belongs to {' or '.join(owner.title for owner in found)}; add {' or '.join(choices)}"


def closest(spelling: str, known: Iterable[str]) -> str | None:
    """The flag of ``known`` (with dashes) that looks most like a mistaken one; None if none does."""
    names = {name.lstrip("-"): name for name in known}  # dashes would make any two flags look alike
    meant = spelling.lstrip("-")
    close = difflib.get_close_matches(meant, list(names), cutoff=0.66)
    swapped = [name for name in close if sorted(name) == sorted(meant)]  # --sea: sae rather than set
    return names[[*swapped, *close][0]] if close else None


def _installed_flags(registry: Registry) -> set[str]:
    configs = [spec.config for slot in SLOTS.values() for spec in registry.specs(slot.kind)]
    return {
        f"--{short}" for config in configs for field in config.model_fields for short in _short(config, field)
    }
