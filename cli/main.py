"""The ``qsae`` command: its built-in commands and those of plugins, imported when they run.

A built-in command ``do-this`` is the object ``do_this`` of the module ``qsae_cli.do_this``; a keyword of
Python has an underscore behind it there (``import_``).
"""

from __future__ import annotations

import functools
import keyword
import os
import sys
import traceback
from typing import Any

import click

from qsae_cli import long_name, no_memory
from qsae_cli.lazy_command import LazyCommand
from qsae_cli.several import refuse_several
from qsae_cli.waiting import let_threads_sleep
from qsae_core import QsaeError, __version__
from qsae_core.errors import StoppedError, did_you_mean
from qsae_core.plugins.records import load_plugins

BUILT_IN = {
    "train": "Train a sparse autoencoder or a transcoder.",
    "evaluate": "Evaluate a trained coder, on its own data or on other data.",
    "quantize": "Quantize a trained coder, without training it again.",
    "import": "Make a coder of another library's checkpoint.",
    "export": "Write a trained coder as another library's checkpoint.",
    "runs": "List the runs in a results folder.",
    "list-plugins": "List the installed plugins and what they bring.",
    "describe": "Show a component's options and how to write them.",
    "check": "Run the conformance checks on an installed plugin.",
    "new-plugin": "Write a new plugin that installs and passes its own tests.",
}
"""Name -> the line in ``qsae --help``, so that help imports no command's module."""
SHARED = ("train",)
"""Those of them whose work several processes share."""

NOT_HERE = "; a plugin may bring it: qsae list-plugins shows which are installed, and which are not loaded"


class QsaeGroup(click.Group):
    """A group whose commands are imported when they run, and that reports a QsaeError plainly."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Built-in commands in their order, then the plugins' in alphabetical order."""
        return [*_built_in(), *_plugin_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or what stands for it until it runs; None if there is none of that name."""
        # also before a built-in command: asking plugins for commands may show that one of them is broken
        return (_plugin_commands() | _built_in()).get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that runs, imported; the closest one where there is none of that name."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            meant = did_you_mean(name, self.list_commands(ctx))
            ctx.fail(f"no such command {name!r}{meant or NOT_HERE}")
        if not name.startswith("-"):
            _check_shared(name)
        found, command, rest = super().resolve_command(ctx, args)
        return found, command.load() if isinstance(command, LazyCommand) else command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        for title, commands in (("Commands", _built_in()), ("Commands of plugins", _plugin_commands())):
            lines = [(name, command.get_short_help_str(limit=100)) for name, command in commands.items()]
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run; a QsaeError, and that there is no memory or a name is too long, go to stderr without a
        traceback (``QSAE_DEBUG=1``: with it), and exit 2."""
        try:
            return super().main(*args, **kwargs)
        except (QsaeError, MemoryError, OSError, RuntimeError) as error:
            shown = error if isinstance(error, QsaeError) else None
            shown = shown or no_memory.as_error(error) or long_name.as_error(error)
            if shown is None:
                raise
            if os.environ.get("QSAE_DEBUG", "0") not in ("", "0"):
                traceback.print_exception(error)
            if not isinstance(shown, StoppedError):  # what that stands for is shown by another process
                click.echo(f"qsae: error: {shown}", err=True)
            sys.exit(2)


@functools.cache
def _built_in() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, line in BUILT_IN.items():
        own = name.replace("-", "_") + "_" * keyword.iskeyword(name)
        found[name] = LazyCommand(name, f"qsae_cli.{own}:{own}", line, shared=name in SHARED)
    return found


@functools.cache
def _plugin_commands() -> dict[str, click.Command]:
    """In alphabetical order."""
    added = load_plugins().commands(reserved=BUILT_IN)
    return {name: added[name] for name in sorted(added)}


def _check_shared(name: str) -> None:
    """Refuse several processes to a command that does not share its work, built in or a plugin's."""
    found = _plugin_commands() | _built_in()
    shared = [other for other, command in found.items() if getattr(command, "shared", False)]
    if name not in shared:
        refuse_several(name, shared)


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
