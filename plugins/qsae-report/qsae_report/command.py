"""``qsae report``."""

from __future__ import annotations

import click


@click.command("report")
def report() -> None:
    """Write a run as one HTML file."""
