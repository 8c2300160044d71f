"""A lenient first look at a command line: what it chooses, and which flags of components occur."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from qsae_cli.options.flag_names import owners
from qsae_core.config.schema import field_schemas
from qsae_core.config.settings import RunSettings, TrainConfig

if TYPE_CHECKING:
    from qsae_core.registry import Registry


class Survey(NamedTuple):
    """What a command line says before its options are known."""

    values: Mapping[str, Any]
    """Values of the command's own parameters, by name; None where one is missing or not valid."""
    flags: frozenset[str]
    """Every other flag that occurs and that an installed component, ``train`` or ``run`` has, with dashes."""


def survey(
    params: Sequence[click.Parameter],
    args: Sequence[str],
    settings: Mapping[str, Any],
    registry: Registry,
) -> Survey:
    """Parse ``args`` with ``params`` and with whatever fields of installed components occur in it.

    It is no search for words that look like flags: ``--out --sae`` gives ``out`` the value ``--sae``, as
    the parsing proper will. Unknown flags and missing values are left for that to report.

    Args:
        params: the command's own parameters and those that choose components.
        args: the command line.
        settings: the command's context settings.
        registry: the installed components.
    """
    taken = {spelling for p in params for spelling in (*p.opts, *p.secondary_opts)}
    options: dict[str, click.Option] = {}
    for word in args:
        spelling, equals, _ = word.partition("=")
        spelling = with_dashes(spelling)
        if spelling.startswith("--") and spelling not in taken and spelling not in options:
            option = _survey_option(f"flag_{len(options)}", spelling, bool(equals), registry)
            if option:
                options[spelling] = option
    command = click.Command(
        None,
        params=[*params, *options.values()],
        context_settings={**settings, "ignore_unknown_options": True, "allow_extra_args": True},
        add_help_option=False,
    )
    context = command.make_context(None, list(args), resilient_parsing=True)
    return Survey(context.params, frozenset(s for s, o in options.items() if is_given(context, o)))


def is_given(ctx: click.Context, option: click.Option) -> bool:
    """Whether an option occurs on the command line."""
    return ctx.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE


def with_dashes(token: str) -> str:
    """A flag with dashes where somebody wrote underscores, as fields have them."""
    return token.replace("_", "-")


def _survey_option(name: str, spelling: str, has_value: bool, registry: Registry) -> click.Option | None:
    """An option of that spelling; a switch if it is one in some component and no value is attached to it."""
    schemas = [field_schemas(owner.spec.config)[owner.field] for owner in owners(spelling, registry)]
    field = spelling.removeprefix("--").rpartition(".")[2].replace("-", "_")
    for section in (TrainConfig, RunSettings):
        schemas += [s for f, s in field_schemas(section).items() if f in (field, field.removeprefix("no_"))]
    if not schemas:
        return None
    is_switch = any(schema.is_switch for schema in schemas) and not has_value
    return click.Option([spelling, name], is_flag=is_switch or None, multiple=not is_switch)
