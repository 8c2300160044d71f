"""Coders in a running language model: ``steer``, ``splice``, and the command ``qsae splice``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qsae_core import hookimpl

if TYPE_CHECKING:
    import click

    from qsae_splice.compare import Continued, go_on
    from qsae_splice.directions import read_direction
    from qsae_splice.edits import AnyEdit, DirectionEdit, Edit
    from qsae_splice.intervention import check_latent
    from qsae_splice.modules import ModuleSite
    from qsae_splice.opened import Opened, open_coder
    from qsae_splice.places import SINGLE
    from qsae_splice.scales import Scales, measure
    from qsae_splice.spec import Spec, read_edits
    from qsae_splice.steering import Splicing, splice, steer
    from qsae_splice.tokens import Tokens

__all__ = [
    "SINGLE",
    "AnyEdit",
    "Continued",
    "DirectionEdit",
    "Edit",
    "ModuleSite",
    "Opened",
    "Scales",
    "Spec",
    "Splicing",
    "Tokens",
    "check_latent",
    "go_on",
    "measure",
    "open_coder",
    "read_direction",
    "read_edits",
    "splice",
    "steer",
]

_FROM = {
    "SINGLE": "places",
    "AnyEdit": "edits",
    "Continued": "compare",
    "DirectionEdit": "edits",
    "Edit": "edits",
    "ModuleSite": "modules",
    "Opened": "opened",
    "Scales": "scales",
    "Spec": "spec",
    "Splicing": "steering",
    "Tokens": "tokens",
    "check_latent": "intervention",
    "go_on": "compare",
    "measure": "scales",
    "open_coder": "opened",
    "read_direction": "directions",
    "read_edits": "spec",
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
