"""What ``qsae cache`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.commands import print_json, print_table

if TYPE_CHECKING:
    from qsae_store.harvest import Progress
    from qsae_store.plan import Plan


def show_progress(progress: Progress) -> None:
    """A line on stderr for each shard."""
    rate = progress.new_vectors / max(progress.seconds, 1e-9)
    of = "" if progress.limit is None else f" of {progress.limit:,}"
    left = ""
    if progress.limit is not None and progress.side == "training":
        minutes = max(0, progress.limit - progress.vectors) / rate / 60
        left = f", {minutes:,.0f} min left"
    click.echo(f"{progress.shard}: {progress.vectors:,}{of} vectors, {rate:,.0f} tokens/s{left}", err=True)


def show_estimate(plan: Plan, found: Mapping[str, Any]) -> None:
    """What ``measure`` found, as a table."""
    seconds = found["seconds"]
    print_table(
        ["what", "number>"],
        [
            ["places", ", ".join(place.name for place in plan.places)],
            ["vectors of each, training", f"{found['vectors']:,}"],
            ["vectors of each, held out, at most", f"{found['held_out_vectors']:,}"],
            [f"bytes of a token ({plan.storage})", f"{found['bytes_per_token']:,}"],
            ["bytes", f"{found['bytes']:,} ({found['bytes'] / 1e9:.2f} GB)"],
            ["free there", "not known" if found["free"] is None else f"{found['free'] / 1e9:.2f} GB"],
            ["tokens/s of the language model", f"{found['tokens_per_second']:,.0f}"],
            ["time", f"{seconds / 3600:.1f} h" if seconds > 7200 else f"{seconds / 60:.1f} min"],
        ],
    )


def show_store(store: str, as_json: bool) -> None:
    """What a store holds, place by place."""
    from qsae_store.info import describe

    found = describe(store)
    if as_json:
        print_json(found)
        return
    size = f"{found['bytes'] / 1e9:.2f} GB, {found['shards']} shards"
    click.echo(f"{store}: {found['model']}, {found['storage']}, {size}")
    sides = f"{found['training_vectors']:,} training and {found['held_out_vectors']:,} held-out vectors"
    click.echo(f"{sides} of each place")
    rows = [
        [
            place["place"],
            f"{place['width']:,}",
            _number(place.get("rms")),
            _number(place.get("mean_norm")),
            f"{_number(place.get('least_norm'))} to {_number(place.get('largest_norm'))}",
        ]
        for place in found["places"]
    ]
    if found["lacking"] is not None:
        click.echo(f"qsae: warning: {found['lacking']}", err=True)
    print_table(["place", "width>", "rms>", "mean norm>", "norms>"], rows)


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.4g}"
