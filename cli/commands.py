"""What commands of plugins may use of the command line: their registration, dynamic options, and output.

Names are imported when they are asked for, so that a plugin's top module may register a ``LazyCommand`` at
start-up. What commands do is in ``qsae_core.runs``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsae_core.lazy import lazily

if TYPE_CHECKING:
    from qsae_cli.lazy_command import LazyCommand
    from qsae_cli.options.choice_options import Scope, set_layer
    from qsae_cli.options.component_options import ConfiguredCommand
    from qsae_cli.options.count import Count
    from qsae_cli.options.recorded import check_data, model_flags, recorded_data
    from qsae_cli.options.with_commands import WithCommands
    from qsae_cli.output import json_option, print_json, print_table
    from qsae_cli.progress import make_watcher

__all__ = [
    "ConfiguredCommand",
    "Count",
    "LazyCommand",
    "Scope",
    "WithCommands",
    "check_data",
    "json_option",
    "make_watcher",
    "model_flags",
    "print_json",
    "print_table",
    "recorded_data",
    "set_layer",
]

_FROM = {
    "lazy_command": ("LazyCommand",),
    "options.choice_options": ("Scope", "set_layer"),
    "options.component_options": ("ConfiguredCommand",),
    "options.count": ("Count",),
    "options.recorded": ("check_data", "model_flags", "recorded_data"),
    "options.with_commands": ("WithCommands",),
    "output": ("json_option", "print_json", "print_table"),
    "progress": ("make_watcher",),
}
LATER = {name: f"qsae_cli.{module}" for module, names in _FROM.items() for name in names}
"""Every name -> the module that defines it."""
__getattr__ = lazily(__name__, LATER)
