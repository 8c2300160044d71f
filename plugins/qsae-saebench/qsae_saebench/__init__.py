"""Command ``qsae saebench``: stored evaluations as the result files of SAEBench."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsae_core import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def qsae_register_commands(cli: click.Group) -> None:
    """Adds ``qsae saebench``."""
    from qsae_cli.commands import LazyCommand

    line = "Write stored evaluations as the result files of SAEBench."
    cli.add_command(LazyCommand("saebench", "qsae_saebench.command:saebench", line))
