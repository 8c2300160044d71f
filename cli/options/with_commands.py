"""A command that has others below its name."""

from __future__ import annotations

from typing import Any

import click

from qsae_cli.options.component_options import ConfiguredCommand
from qsae_cli.several import refuse_several


class WithCommands(ConfiguredCommand):
    """A command that does its own work (``qsae samples PATH``) or, where its first argument is the name of
    one, runs another (``qsae samples show PATH``), which is for a single process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands: dict[str, click.Command] = {}

    def add_command(self, command: click.Command) -> None:
        """Have another one below this one's name."""
        assert command.name is not None
        self.commands[command.name] = command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command that runs."""
        command = self.commands.get(args[0]) if args else None
        if command is None:
            return super().make_context(info_name, args, parent, **extra)
        refuse_several(f"{self.name} {args[0]}", (str(self.name),))
        return command.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
