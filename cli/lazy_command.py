"""A command that is known by its name and its line in ``qsae --help`` until it runs."""

from __future__ import annotations

import click

from qsae_core.errors import PluginError
from qsae_core.registry import import_target


class LazyCommand(click.Command):
    """Stands for a command whose module is imported when somebody runs it, completes it or asks for its help.

    Args:
        name: what it is called on the command line.
        target: ``"package.module:object"``, the ``click.Command`` itself.
        line: what ``qsae --help`` says of it.
        shared: whether processes that a launcher started together share its work; they are refused where
            each would do all of it.
    """

    def __init__(self, name: str, target: str, line: str, *, shared: bool = False) -> None:
        super().__init__(name, short_help=line)
        self.target, self.shared = target, shared

    def load(self) -> click.Command:
        """Import the command.

        Raises:
            PluginError: if it cannot be imported, or is no command.
        """
        where = f"command {self.name!r}"
        command = import_target(self.target, where)
        if not isinstance(command, click.Command):
            raise PluginError(
                f"target {self.target!r} is of type {type(command).__name__}; it must be a click.Command",
                where=where,
                next="correct or reinstall the plugin",
            )
        return command
