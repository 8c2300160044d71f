"""Flags of data sources, which other commands have and ``qsae compare`` says with ``--on``."""

from __future__ import annotations

import click

from qsae_core.errors import ConfigError
from qsae_core.runs import Registry, load_plugins


class SaysOn(click.Command):
    """A command whose data is chosen with ``--on``; a flag such as ``--data-path`` is refused with that."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line.

        Raises:
            ConfigError: for a flag of an installed data source.
        """
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            said = said_with_on(error.option_name, load_plugins().registry)
            if said is None:
                raise
            raise ConfigError(
                "is no option of qsae compare, which measures on other data where --on says so",
                where=error.option_name,
                next=f"qsae compare RUN... --evaluate {said}",
            ) from error


def said_with_on(flag: str, registry: Registry) -> str | None:
    """How ``--on`` says a flag of a data source, with its dashes; None where no installed one has it."""
    if flag == "--data":
        return "--on data.use=NAME"
    name = flag.removeprefix("--").removeprefix("data.")
    ways = [
        f"--on data.use={spec.name} --on data.{field}={field.upper()}"
        for spec in registry.specs("data")
        for field, info in spec.config.model_fields.items()
        if name in _spellings(field, info.json_schema_extra)
    ]
    return ", or ".join(ways) or None


def _spellings(field: str, extra: object) -> list[str]:
    """How a flag names a field, whose option declares more of them in its schema."""
    declared = extra.get("flags") if isinstance(extra, dict) else None
    return [field.replace("_", "-"), *(map(str, declared) if isinstance(declared, list) else ())]
