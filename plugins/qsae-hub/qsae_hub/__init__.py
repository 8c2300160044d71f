"""Commands ``qsae push`` and ``qsae pull``, and addresses ``hf://``: coders on the Hugging Face Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsae_core import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def qsae_register_addresses() -> dict[str, str]:
    """``hf://user/repo[@revision][/path]``."""
    return {"hf": "qsae_hub.fetching:fetch"}


@hookimpl
def qsae_register_commands(cli: click.Group) -> None:
    """Adds ``qsae push`` and ``qsae pull``."""
    from qsae_cli.commands import LazyCommand

    cli.add_command(
        LazyCommand("push", "qsae_hub.push_command:push", "Upload a coder to the Hugging Face Hub.")
    )
    cli.add_command(
        LazyCommand("pull", "qsae_hub.pull_command:pull", "Fetch a coder from the Hugging Face Hub.")
    )
