"""``qsae cache``: harvest a language model's vectors into a store; and what can be asked of one."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.commands import ConfiguredCommand, Count, Scope, WithCommands, json_option, print_json
from qsae_core.errors import DataError
from qsae_core.runs import Layer, launched, load_plugins, resolve_data
from qsae_store.plan import STORAGES
from qsae_store.shown import show_estimate, show_progress, show_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from qsae_core.contracts import DataSource
    from qsae_store.manifest import Manifest

SCOPE = Scope(slots=("data",), lists=(), sections=(), needs_coder=False, config_file=False)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """What decides how much is harvested, and in which form."""
    for option in reversed(
        (
            click.option(
                "--tokens",
                type=Count(),
                help="Training vectors of a place, in whole contexts.  [default: one pass over the text]",
            ),
            click.option(
                "--held-out-tokens",
                type=Count(),
                default=200_000,
                show_default=True,
                help="Vectors for evaluation, at most, from the documents that are held out.",
            ),
            click.option(
                "--storage",
                type=click.Choice(STORAGES),
                default="bf16",
                show_default=True,
                help="How vectors are stored; int8 with a scale for each.",
            ),
            click.option(
                "--shard-tokens",
                type=Count(),
                default=65_536,
                show_default=True,
                help="Positions of a shard, in whole contexts: what is in memory, and lost by a kill.",
            ),
            click.option(
                "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all orders."
            ),
            click.option(
                "--device",
                default="auto",
                show_default=True,
                help="Of the language model: auto, cpu, cuda:0.",
            ),
            click.option("--threads", type=click.IntRange(min=1), help="CPU threads of torch."),
        )
    ):
        command = option(command)
    return command


@click.command("cache", cls=WithCommands, scope=SCOPE)
@click.option(
    "--out", required=True, metavar="DIR", help="Folder of the store, or its URL (s3://, gs://, file://)."
)
@_options
@json_option
def cache(layers: list[Layer], out: str, as_json: bool, **options: Any) -> None:
    """Harvest a language model's vectors, once, into a store that qsae train --store DIR reads.

    The places are chosen as for training: --layers 3,6,9 --site resid_post, or --layers 3,6,9 --sites
    mlp_in,mlp_out for several of each layer. Text has no second pass here: what is stored is stored once.

    A harvest that was killed goes on when the same command is run again; more --tokens go on with a complete
    one. Under torchrun, processes share the shards.

    \b
    qsae cache estimate ...   bytes and time, before anything is written
    qsae cache info DIR       what a store holds
    qsae cache verify DIR     compare every file with its checksum
    """
    from qsae_store.beginning import begin
    from qsae_store.folder import open_folder
    from qsae_store.harvest import Harvest

    if not out.strip() or out.lower().startswith("memory:"):
        raise DataError(
            "what is written there ends with this process" if out.strip() else "it names no folder",
            where="--out",
            allowed="a folder, or a URL such as s3://bucket/folder",
            next="--out DIR",
        )
    rank, world, _ = launched()
    source, manifest = _manifest(layers, options)
    folder = open_folder(out)
    manifest = begin(folder, manifest)
    harvest = Harvest(folder, manifest, source, rank=rank, world=world, watch=show_progress)
    shows = rank == 0 if manifest.shards is not None else harvest.run()
    source.close()
    if shows:
        show_store(out, as_json)
    else:
        click.echo("what this process has to write is written; the last to end shows the store", err=True)


@click.command("estimate", cls=ConfiguredCommand, scope=SCOPE)
@click.option("--out", metavar="DIR", help="Where it is to go, to compare with the space that is free there.")
@_options
@json_option
def estimate(layers: list[Layer], out: str | None, as_json: bool, **options: Any) -> None:
    """Say how many bytes a harvest writes and how long it takes, from a little of it; nothing is written.

    Options are those of qsae cache.
    """
    from qsae_store.estimate import measure

    source, manifest = _manifest(layers, options)
    found = measure(source, manifest.plan, pathlib.Path(out) if out and "://" not in out else None)
    source.close()
    if as_json:
        print_json(found)
        return
    show_estimate(manifest.plan, found)
    if found["free"] is not None and found["bytes"] > found["free"]:
        raise DataError(
            f"the store would take {found['bytes'] / 1e9:.2f} GB, and {found['free'] / 1e9:.2f} GB are free",
            where=str(out),
            next="fewer --tokens or places, --storage int8, or another --out",
        )


@click.command("info")
@click.argument("store", metavar="DIR")
@json_option
def info(store: str, as_json: bool) -> None:
    """Show what the store at DIR (or a URL) holds."""
    show_store(store, as_json)


@click.command("verify")
@click.argument("store", metavar="DIR")
@click.option("--drop", is_flag=True, help="Remove what is damaged, so that the harvest can write it again.")
@json_option
def verify(store: str, drop: bool, as_json: bool) -> None:
    """Compare every file of the store at DIR (or a URL) with its checksum; exit with 1 where one differs."""
    from qsae_store.info import describe
    from qsae_store.verify import drop_damaged, find_damage

    damaged = find_damage(store)
    if as_json:
        print_json({"store": store, "damaged": [found._asdict() for found in damaged]})
    for found in [] if as_json else damaged:
        click.echo(f"{store}: {found.file}: {found.what}")
    if not damaged and not as_json:
        click.echo(f"{store}: every file is as it was written")
        if (lacks := describe(store)["lacking"]) is not None:
            click.echo(lacks)
    if damaged and drop:
        drop_damaged(store, damaged)
        click.echo("removed; the command that wrote the store writes it again", err=True)
    if damaged:
        raise SystemExit(1)


for command in (estimate, info, verify):
    cache.add_command(command)


def _manifest(layers: list[Layer], options: dict[str, Any]) -> tuple[DataSource, Manifest]:
    import torch

    from qsae_core.runs import open_data, own_device, resolve_device
    from qsae_store.beginning import manifest_of

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    registry = load_plugins().registry
    block, _ = resolve_data(layers, registry)
    device = own_device(resolve_device(options["device"]), launched(), "cache")
    source = open_data(block, registry, seed=options["seed"], device=device)
    manifest = manifest_of(
        source,
        block.to_dict(),
        seed=options["seed"],
        storage=options["storage"],
        shard_positions=options["shard_tokens"],
        tokens=options["tokens"],
        held_out_tokens=options["held_out_tokens"],
    )
    return source, manifest
