"""Data source ``store`` and command ``qsae cache``: hidden states, harvested once for many runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsae_core import ComponentSpec, PlacesConfig, hookimpl, option

if TYPE_CHECKING:
    import click


class StoreConfig(PlacesConfig):
    """Hidden states that ``qsae cache`` wrote, shuffled over the whole store.

    Which of the stored places are read is chosen as in ``lm``; what is not said is the only one there is, or
    the middle layer's. The language model that they came from is opened where an evaluation needs it.
    """

    path: str = option(
        description="folder that `qsae cache` wrote, or its URL (s3://, gs://, file://)",
        aliases=("store",),
    )
    model_path: str | None = option(
        None,
        "where the language model is now, for evaluations that need it; none: where it was",
        min_length=1,
    )
    cache_dir: str | None = option(
        None,
        "folder for copies of a store that is read from a URL; none: the user's cache folder",
        min_length=1,
    )
    shuffle_blocks: int = option(
        1152,
        "blocks of 64 vectors, drawn from all over the store, that are in memory and shuffled together",
        gt=0,
    )
    max_norm_multiple: float | None = option(
        None,
        "leave vectors out of training whose norm is more than so many times the median of the first 8192; "
        "none: train on all",
        ge=1,
    )


@hookimpl
def qsae_register_data_sources() -> list[ComponentSpec]:
    """The one component of this plugin."""
    return [ComponentSpec("data", "store", StoreConfig, "qsae_store.source:StoreSource")]


@hookimpl
def qsae_register_commands(cli: click.Group) -> None:
    """Adds ``qsae cache``."""
    from qsae_cli.commands import LazyCommand

    line = "Harvest hidden states into a store; info, verify and estimate of one."
    cli.add_command(LazyCommand("cache", "qsae_store.command:cache", line, shared=True))
