"""``qsae describe``: a component's options, and how to write them."""

from __future__ import annotations

import inspect
import types
import typing
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.output import json_option, print_json, print_table
from qsae_core.component import ComponentSpec, replaced
from qsae_core.kinds import KINDS, LIST_SLOTS, SLOTS
from qsae_core.plugins.records import load_plugins

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from qsae_core.registry import Registry

FLOW_WIDTH = 100
"""Blocks up to this wide are shown on one line."""
SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "multiple of"}


@click.command(epilog=f"Kinds: {', '.join(KINDS)}.")
@click.argument("kind")
@click.argument("name", required=False)
@json_option
def describe(kind: str, name: str | None, as_json: bool) -> None:
    """Show a component's options and how to write them, or list the components of a KIND.

    \b
    qsae describe quantizer         the quantizers that are installed
    qsae describe quantizer ste     the options of one; --json prints their JSON schema
    """
    registry = load_plugins().registry
    if name is None:
        _list_kind(kind, registry, as_json)
        return
    spec = registry.get(kind, name)
    if as_json:
        print_json({**spec.config.model_json_schema(), "x-qsae": _facts(spec, registry)})
    else:
        _print_component(spec, registry)


def _list_kind(kind: str, registry: Registry, as_json: bool) -> None:
    rows = [(s.name, _summary(s), *registry.provider(kind, s.name)) for s in registry.specs(kind)]
    contested = {name: providers for (k, name), providers in registry.contested().items() if k == kind}
    if as_json:
        columns = ("name", "summary", "provider", "version")
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif rows:
        print_table(("name", "what it is", "plugin", "version"), rows, title=KINDS[kind].title)
    else:
        click.echo(f"no {KINDS[kind].title} are installed; next: qsae list-plugins, or pip install a plugin")
    for name, providers in contested.items():
        who = ", ".join(provider.name for provider in providers)
        click.echo(f"{kind} {name!r} is registered by several plugins and not used: {who}", err=True)


def _print_component(spec: ComponentSpec, registry: Registry) -> None:
    provider = registry.provider(spec.kind, spec.name)
    click.echo(f"{spec.kind} {spec.name}, from {provider.name} {provider.version}\n")
    click.echo(inspect.cleandoc(spec.config.__doc__ or "(no description)") + "\n")
    rows = [
        (name, _type(info.annotation), _default(info), _constraint(info), info.description or None)
        for name, info in spec.config.model_fields.items()
    ]
    if rows:
        print_table(("option", "type", "default", "constraint", "description"), rows)
    else:
        click.echo("no options")
    block = _yaml(spec)
    if block:
        click.echo(f"\nIn a configuration file:\n\n{block}")
    if spec.default_parts:
        parts = [(slot, _part(part)) for slot, part in spec.default_parts.items()]
        print_table(("part", "default"), parts, title="\nParts that it takes unless you choose others:")
    if spec.refuses:
        refused = [(f"{kind} {name}", reason) for (kind, name), reason in spec.refuses.items()]
        print_table(("part", "why"), refused, title="\nParts that it cannot work with:")


def _facts(spec: ComponentSpec, registry: Registry) -> dict[str, Any]:
    provider = registry.provider(spec.kind, spec.name)
    return {
        "kind": spec.kind,
        "name": spec.name,
        "provider": provider.name,
        "version": provider.version,
        "target": spec.target,
        "default_parts": {slot: part and dict(part) for slot, part in spec.default_parts.items()},
        "refuses": [{"kind": k, "name": n, "reason": reason} for (k, n), reason in spec.refuses.items()],
    }


def _summary(spec: ComponentSpec) -> str | None:
    """The first sentence's line of the docstring; a config without one inherits no other class's."""
    text = inspect.cleandoc(vars(spec.config).get("__doc__") or "")
    return text.split("\n\n")[0].replace("\n", " ") or None


def _type(annotation: Any) -> str:
    """``int``, ``one of a, b``, ``int or none``: a type as a user would say it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments)) if len(arguments) > 1 else str(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if annotation is type(None):
        return "none"
    if arguments:
        inside = ", ".join("..." if argument is ... else _type(argument) for argument in arguments)
        return f"{getattr(origin, '__name__', origin)} of {inside}"
    return getattr(annotation, "__name__", None) or str(annotation)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    return "none" if value is None else str(value)


def _constraint(info: FieldInfo) -> str | None:
    """``> 0, <= 8``: what pydantic will check besides the type."""
    found = []
    for item in info.metadata:
        for attribute in ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern"):
            limit = getattr(item, attribute, None)
            if limit is not None:
                found.append(f"{SIGNS.get(attribute, attribute.replace('_', ' '))} {limit}")
    return ", ".join(found) or None


def _yaml(spec: ComponentSpec) -> str | None:
    """A block that can be pasted into a configuration file, with every default; None without such a place.

    A required option stands there as null, which the configuration refuses until it is filled in.
    """
    import yaml

    block: dict[str, Any] = {"use": spec.name}
    fields = spec.config.model_fields
    required = [name for name, info in fields.items() if info.is_required()]
    defaults = {n: i.get_default(call_default_factory=True) for n, i in fields.items()}
    values = spec.config.model_construct(**{n: v for n, v in defaults.items() if n not in required})
    dumped = values.model_dump(mode="json")
    block |= {name: dumped.get(name) for name in fields if name not in replaced(values)}
    place = next((slot.name for slot in SLOTS.values() if slot.kind == spec.kind), None)
    list_place = next((name for name, kind in LIST_SLOTS.items() if kind == spec.kind), None)
    if place is None and list_place is None:
        return None
    tree = {place: block} if place else {list_place: [block]}
    text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=10_000, allow_unicode=True)
    if max(map(len, text.splitlines())) > FLOW_WIDTH:
        text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=False, allow_unicode=True)
    notes = f"# fill in: {', '.join(required)}\n" if required else ""
    return notes + text.rstrip("\n")


def _part(part: Any) -> str:
    if part is None:
        return "none: it has no such part"
    options = ", ".join(f"{key}={value}" for key, value in part.items() if key != "use")
    return f"{part['use']} ({options})" if options else str(part["use"])
