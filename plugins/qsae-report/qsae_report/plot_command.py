"""``qsae plot``."""

from __future__ import annotations

import click


@click.command("plot")
def plot() -> None:
    """Draw the curves and histograms of runs."""
