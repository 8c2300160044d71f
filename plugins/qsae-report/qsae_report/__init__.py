"""Commands ``qsae report`` and ``qsae plot``: a run as one HTML file, and its curves as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsae_core import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def qsae_register_commands(cli: click.Group) -> None:
    """Adds ``qsae report`` and ``qsae plot``."""
    from qsae_cli.commands import LazyCommand

    line = "Write a run as one HTML file: numbers, charts, and every latent with its text."
    cli.add_command(LazyCommand("report", "qsae_report.command:report", line))
    line = "Draw the curves and histograms of runs."
    cli.add_command(LazyCommand("plot", "qsae_report.plot_command:plot", line))
