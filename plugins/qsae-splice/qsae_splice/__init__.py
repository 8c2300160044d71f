"""Coders in a running language model: ``steer``, ``splice``, and the command ``qsae splice``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qsae_core import hookimpl

if TYPE_CHECKING:
    import click

    from qsae_splice.directions import read_direction
    from qsae_splice.edits import DirectionEdit, Edit
    from qsae_splice.modules import ModuleSite
    from qsae_splice.scales import Scales, measure
    from qsae_splice.steering import Splicing, splice, steer
    from qsae_splice.tokens import Tokens

__all__ = [
    "DirectionEdit",
    "Edit",
    "ModuleSite",
    "Scales",
    "Splicing",
    "Tokens",
    "measure",
    "read_direction",
    "splice",
    "steer",
]

_FROM = {
    "DirectionEdit": "edits",
    "Edit": "edits",
    "ModuleSite": "modules",
    "Scales": "scales",
    "Splicing": "steering",
    "Tokens": "tokens",
    "measure": "scales",
    "read_direction": "directions",
    "splice": "steering",
    "steer": "steering",
}


def __getattr__(name: str) -> Any:
    """The public names, whose modules are imported when they are asked for: most need torch."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)


@hookimpl
def qsae_register_commands(cli: click.Group) -> None:
    """Adds ``qsae splice``."""
    from qsae_cli.commands import LazyCommand

    line = "Run a language model with a coder spliced in: steer, clamp and ablate latents."
    cli.add_command(LazyCommand("splice", "qsae_splice.command:splice", line))
