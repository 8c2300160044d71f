"""A command whose options are, beside its own, those of the format that its ``--format`` names."""

from __future__ import annotations

from typing import Any

import click

from qsae_cli.options.flag_names import field_flags
from qsae_cli.options.survey import is_given, with_dashes
from qsae_core.config.draft import Draft
from qsae_core.plugins.records import load_plugins

FORMAT = "form"
"""The parameter that chooses."""
_META = "qsae_cli.options.format_options"


class FormatCommand(click.Command):
    """A command whose callback takes ``options`` beside its own parameters: what the command line gives of
    the chosen format's options, name -> value."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["context_settings"] = {"token_normalize_func": with_dashes, "max_content_width": 110}
        super().__init__(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the format, make its options, parse.

        Raises:
            PluginError: for a format that is not installed.
        """
        name = self._chosen(args)
        if name is not None:
            spec = load_plugins().registry.get("format", name)
            reserved = {s for p in self.params for s in p.opts} | {"--help"}
            ctx.meta[_META] = field_flags([Draft(("format",), spec.config, spec)], reserved).options
        rest = super().parse_args(ctx, args)
        given = {}
        for option in ctx.meta.get(_META, []):
            value = ctx.params.pop(str(option.name), None)
            if is_given(ctx, option):
                given[option.path[-1]] = value
        ctx.params["options"] = given
        return rest

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, and the format's."""
        return [*super().get_params(ctx), *ctx.meta.get(_META, [])]

    def _chosen(self, args: list[str]) -> str | None:
        """The format, by a first parsing that leaves faults to the one proper."""
        settings = {**self.context_settings, "ignore_unknown_options": True, "allow_extra_args": True}
        first = click.Command(None, params=self.params, context_settings=settings, add_help_option=False)
        name: str | None = first.make_context(None, list(args), resilient_parsing=True).params[FORMAT]
        return name
