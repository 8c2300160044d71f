"""Command ``qsae compare``: sweeps, and many runs as one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsae_core import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def qsae_register_commands(cli: click.Group) -> None:
    """Adds ``qsae compare``."""
    from qsae_cli.commands import LazyCommand

    line = "Put trained coders side by side: rate and distortion; train a sweep for it."
    cli.add_command(LazyCommand("compare", "qsae_compare.command:compare", line))
