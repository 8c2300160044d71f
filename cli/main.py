"""The ``qsae`` command: built-in commands, imported only when they run, and the plugins' commands.

A built-in command ``do-this`` is the object ``do_this`` of the module ``qsae_cli.do_this``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
import traceback
from typing import Any

import click

from qsae_cli.waiting import let_threads_sleep
from qsae_core import QsaeError, __version__
from qsae_core.errors import did_you_mean
from qsae_core.plugins.records import load_plugins

BUILT_IN = {
    "train": "Train a sparse autoencoder or a transcoder.",
    "evaluate": "Evaluate a trained coder, on its own data or on other data.",
    "quantize": "Quantize a trained coder, without training it again.",
    "compare": "Put trained coders side by side: rate and distortion; train a sweep for it.",
    "bench": "Measure how fast a coder encodes and decodes, beside float32.",
    "runs": "List the runs in a results folder.",
    "list-plugins": "List the installed plugins and what they bring.",
    "describe": "Show a component's options and how to write them.",
    "check": "Run the conformance checks on an installed plugin.",
    "new-plugin": "Write a new plugin that installs and passes its own tests.",
}
"""Name -> the line in ``qsae --help``, so that help imports no command's module."""


class QsaeGroup(click.Group):
    """A group whose built-in commands are imported when they run, and that reports a QsaeError plainly."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Built-in commands in their order, then the plugins' in alphabetical order."""
        return [*_built_in(), *sorted(_plugin_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, importing the module of a built-in one; None if there is none of that name."""
        # also before a built-in command: asking plugins for commands may show that one of them is broken
        added = _plugin_commands()
        if cmd_name in _built_in():
            module = importlib.import_module(_module(cmd_name))
            command: click.Command = getattr(module, cmd_name.replace("-", "_"))
            return command
        return added.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the closest command where there is none of that name."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"no such command {name!r}{did_you_mean(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing the built-in ones."""
        added = _plugin_commands()
        with formatter.section("Commands"):
            formatter.write_dl([(name, BUILT_IN[name]) for name in _built_in()])
        if added:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(
                    [(name, added[name].get_short_help_str(limit=100)) for name in sorted(added)]
                )

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run; a QsaeError goes to stderr without a traceback (``QSAE_DEBUG=1``: with it), and exits 2."""
        try:
            return super().main(*args, **kwargs)
        except QsaeError as error:
            if os.environ.get("QSAE_DEBUG", "0") not in ("", "0"):
                traceback.print_exception(error)
            click.echo(f"qsae: error: {error}", err=True)
            sys.exit(2)


def _module(command: str) -> str:
    return f"qsae_cli.{command.replace('-', '_')}"


@functools.cache
def _built_in() -> tuple[str, ...]:
    return tuple(name for name in BUILT_IN if importlib.util.find_spec(_module(name)) is not None)


@functools.cache
def _plugin_commands() -> dict[str, click.Command]:
    return load_plugins().commands(reserved=BUILT_IN)


@click.group(cls=QsaeGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="qsae")
def cli() -> None:
    """Train, quantize, evaluate and serve sparse autoencoders and transcoders; every part is a plugin."""


def main() -> None:
    """Entry point of the ``qsae`` script.

    Tells torch, before it is imported, to ask for huge pages where the system grants them on request: large
    buffers then cost a fraction of their page faults; and to let threads sleep while they wait. The variables
    are torch's own and OpenMP's, and what a user set stays.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    let_threads_sleep(os.environ)
    cli(prog_name="qsae")
