"""``qsae sites``: what a language model offers to read. Imports transformers only when it runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from qsae_data_lm.families import Layout, Tap


@click.command()
@click.argument("model", default="builtin")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def sites(model: str, as_json: bool) -> None:
    """List the layers, sites and widths of a language MODEL.

    MODEL is `builtin`, a directory, or a Hugging Face id; only its configuration is read, not its weights.
    """
    from qsae_data_lm.loading import find_layout

    description = describe(find_layout(model))
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    last = description["layers"] - 1
    click.echo(f"{model}: {description['architecture']}, {last + 1} layers (0 to {last})")
    rows = [("site", "width", "what is read, in each layer")]
    rows += [(s["site"], str(s["width"]), s["read_at"]) for s in description["sites"]]
    for name, width, place in rows:
        click.echo(f"{name:<11} {width:>5}  {place}")
    for name, reason in description["absent"].items():
        click.echo(f"{name:<11}     -  absent: {reason}")


def describe(layout: Layout) -> dict[str, Any]:
    """JSON values: architecture, number of layers, sites with widths, and sites that the model lacks."""
    from qsae_data_lm.families import SITES

    return {
        "model": layout.model,
        "architecture": layout.model_type,
        "layers": layout.n_layers,
        "sites": [
            {"site": site, "width": layout.width, "read_at": _place(layout.taps[site])}
            for site in SITES
            if site in layout.taps
        ],
        "absent": dict(layout.absent),
    }


def _place(tap: Tap) -> str:
    return f"{tap.side} of {tap.module or 'the layer'}"
