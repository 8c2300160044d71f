"""Command ``qsae bench``: how fast a coder encodes and decodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsae_core import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def qsae_register_commands(cli: click.Group) -> None:
    """Adds ``qsae bench``."""
    from qsae_cli.commands import LazyCommand

    line = "Measure how fast a coder encodes and decodes, beside float32."
    cli.add_command(LazyCommand("bench", "qsae_bench.command:bench", line))
