"""``qsae list-plugins``."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import click

from qsae_cli.lazy_command import LazyCommand
from qsae_cli.output import json_option, print_json, print_table
from qsae_core import QsaeError
from qsae_core.plugins.records import PluginRecord, Plugins, load_plugins
from qsae_core.registry import import_target


@click.command("list-plugins")
@json_option
@click.option(
    "--strict",
    is_flag=True,
    help="Also import every component, command and reader of addresses, and exit with 1 if a plugin is "
    "broken or incompatible or a component is contested. Blocked plugins are fine.",
)
def list_plugins(as_json: bool, strict: bool) -> None:
    """List the installed plugins and what they bring.

    A plugin that cannot be used is shown with the reason; QSAE_DEBUG=1 adds the traceback.
    QSAE_PLUGINS=a,b loads these alone, QSAE_DISABLE_PLUGINS=a blocks one.
    """
    plugins = load_plugins()
    target_faults = _target_faults(plugins) if strict else {}
    entries = [_entry(record, plugins, target_faults.get(record.name, [])) for record in plugins.records]
    if as_json:
        print_json(entries)
    else:
        _print(entries)
    if strict and any(
        e["status"] in ("broken", "incompatible") or e["contested"] or e["target_errors"] for e in entries
    ):
        raise click.exceptions.Exit(1)


def _entry(record: PluginRecord, plugins: Plugins, target_errors: list[str]) -> dict[str, Any]:
    contested = [
        {"kind": kind, "name": name, "with": [p.name for p in providers if p.name != record.name]}
        for (kind, name), providers in plugins.registry.contested().items()
        if record.name in [p.name for p in providers]
    ]
    return {**dataclasses.asdict(record), "contested": contested, "target_errors": target_errors}


def _target_faults(plugins: Plugins) -> dict[str, list[str]]:
    """Distribution -> what is wrong with what it names for its components, addresses and commands; imports
    it all."""
    from qsae_core.kinds import KINDS

    faults: dict[str, list[str]] = {}
    registry = plugins.registry
    for kind in KINDS:
        for spec in registry.specs(kind):
            try:
                registry.load_target(spec)
            except QsaeError as error:
                faults.setdefault(registry.provider(kind, spec.name).name, []).append(str(error))
    for name, schemes in plugins.addresses.items():
        for scheme, target in schemes.items():
            try:
                import_target(target, f"addresses {scheme}://")
            except QsaeError as error:
                faults.setdefault(name, []).append(str(error))
    context = click.get_current_context().find_root()
    assert isinstance(context.command, click.Group)
    for record in plugins.records:
        for name in record.commands:
            command = context.command.get_command(context, name)
            try:
                if isinstance(command, LazyCommand):
                    command.load()
            except QsaeError as error:
                faults.setdefault(record.name, []).append(str(error))
    return faults


def _print(entries: list[dict[str, Any]]) -> None:
    if not entries:
        click.echo("no plugins are installed; next: pip install those that you need (qsae-KIND-NAME)")
        return
    rows = []
    for entry in entries:
        parts = [f"{kind}: {', '.join(names)}" for kind, names in entry["components"].items()]
        if entry["hooks"]:
            parts.append(f"hooks: {', '.join(entry['hooks'])}")
        if entry["commands"]:
            parts.append(f"commands: {', '.join(entry['commands'])}")
        rows.append((entry["name"], entry["version"], entry["status"], "; ".join(parts) or None))
    print_table(("plugin", "version", "status", "brings"), rows)
    for entry in entries:
        if entry["error"]:
            click.echo(f"\n{entry['name']} is {entry['status']}: {entry['error']}")
            if entry["traceback"] and os.environ.get("QSAE_DEBUG", "0") not in ("", "0"):
                click.echo(entry["traceback"])
        for fault in entry["target_errors"]:
            click.echo(f"\n{fault}")
        for clash in entry["contested"]:
            others = ", ".join(clash["with"])
            click.echo(
                f"\n{entry['name']}: {clash['kind']} {clash['name']!r} is claimed by {others} too, so it is "
                f"not used; QSAE_DISABLE_PLUGINS={entry['name']} leaves the other"
            )
