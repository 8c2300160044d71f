"""``qsae sites``: what a language model offers to read. Imports transformers only when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from qsae_cli.commands import json_option, print_json, print_table

if TYPE_CHECKING:
    from qsae_data_lm.families import Layout, Tap


@click.command()
@click.argument("model", default="builtin")
@json_option
def sites(model: str, as_json: bool) -> None:
    """List the layers, sites and widths of a language MODEL.

    MODEL is `builtin`, a directory, or a Hugging Face id; only its configuration is read, not its weights.
    """
    from qsae_data_lm.loading import find_layout

    description = describe(find_layout(model))
    if as_json:
        print_json(description)
        return
    last = description["layers"] - 1
    rows = [(s["site"], s["width"], s["read_at"]) for s in description["sites"]]
    rows += [(name, None, f"absent: {reason}") for name, reason in description["absent"].items()]
    kind = description["architecture"]
    if description["language_model"]:
        kind = f"{kind} (its language model, {description['language_model']})"
    title = f"{model}: {kind}, {last + 1} layers (0 to {last})"
    print_table(["site", "width>", "what is read, in each layer"], rows, title=title)


def describe(layout: Layout) -> dict[str, Any]:
    """JSON values: architecture (and that of the language model, in a model of images and text), number of
    layers, sites with widths, and sites that the model lacks."""
    from qsae_core import SITE_NAMES

    return {
        "model": layout.model,
        "architecture": layout.model_type,
        "language_model": layout.part,
        "layers": layout.n_layers,
        "sites": [
            {"site": site, "width": layout.width, "read_at": _place(layout.taps[site])}
            for site in SITE_NAMES
            if site in layout.taps
        ],
        "absent": dict(layout.absent),
    }


def _place(tap: Tap) -> str:
    return f"{tap.side} of {tap.module or 'the layer'}"
