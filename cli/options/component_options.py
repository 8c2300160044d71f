"""Commands whose options are the fields of the components that the same command line chooses.

Parsing goes in two stages. A survey reads the choices (``--sae``, ``--config``, ...) and which other flags
occur; then the options are made from the schemas of the chosen components, and Click parses with those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.options.choice_options import Scope, choice_layer, choice_options, field_layer, set_layer
from qsae_cli.options.flag_names import FieldFlags, closest, field_flags, implied_data_source, unknown_flag
from qsae_cli.options.survey import Survey, is_given, survey, with_dashes
from qsae_core.config.draft import Draft, DraftConfig
from qsae_core.config.layers import Layer, flag, read_layer
from qsae_core.config.merge import merge
from qsae_core.errors import QsaeError
from qsae_core.plugins.records import load_plugins

if TYPE_CHECKING:
    from qsae_core.registry import Registry

_META = "qsae_cli.options.component_options"
_TITLES = {"train": "Training", "run": "Run"}
Base = Callable[[Mapping[str, Any]], list[Layer]]


@dataclass(frozen=True)
class _Prepared:
    """What the survey led to."""

    choices: list[click.Option]
    flags: FieldFlags
    draft: DraftConfig
    base: list[Layer]


class ConfiguredCommand(click.Command):
    """A command whose callback takes ``layers`` (``list[Layer]``, lowest precedence first) beside its own
    parameters; ``run_config.resolve`` makes a run of them.

    Args:
        scope: which places of a run it has options for.
        base: the command's own lowest layers, from the values of its own parameters (None where one is not
            given): ``qsae evaluate`` starts from the run's record.
    """

    def __init__(
        self, *args: Any, scope: Scope | None = None, base: Base | None = None, **kwargs: Any
    ) -> None:
        own = {"token_normalize_func": with_dashes, "max_content_width": 110}
        kwargs["context_settings"] = own | (kwargs.get("context_settings") or {})
        super().__init__(*args, **kwargs)
        self.scope, self._base = scope or Scope(), base

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Survey, make the options, parse.

        Raises:
            ConfigError: for a flag that nothing chosen has, with where it belongs or what was meant.
            PluginError: for a chosen component that is not installed.
        """
        registry = load_plugins().registry
        prepared = ctx.meta[_META] = self._prepare(ctx, args, registry)
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = {s for p in self.get_params(ctx) for s in (*p.opts, *p.secondary_opts)}
            no_coder = self.scope.needs_coder and prepared.draft.coder is None
            if no_coder and not closest(error.option_name, known):
                merge(prepared.base, registry)  # a missing coder comes before a flag that it may have
            places = self.scope.places
            raise unknown_flag(error.option_name, prepared.flags, known, registry, places) from error
        options = [*prepared.choices, *prepared.flags.options]
        values = {str(o.name): ctx.params.pop(str(o.name), None) for o in options}
        given = {o.path: values[str(o.name)] for o in prepared.flags.options if is_given(ctx, o)}
        changes = set_layer(values.get("set_") or (), self.scope, taken=given)
        ctx.params["layers"] = [*prepared.base, field_layer(given), changes]
        return rest

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, and the options that this command line has."""
        prepared: _Prepared | None = ctx.meta.get(_META)
        dynamic = [*prepared.choices, *prepared.flags.options] if prepared else []
        return [*dynamic, *super().get_params(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, grouped by component."""
        prepared: _Prepared = ctx.meta[_META]
        own = [p for p in super().get_params(ctx) if isinstance(p, click.Option)]
        general = [o for o in prepared.choices if o.name in ("config", "set_")]
        _write(ctx, formatter, "Options", [*general, *own])
        _write(ctx, formatter, "Components", [o for o in prepared.choices if o not in general])
        for draft in prepared.draft.drafts():
            fields = [o for o in prepared.flags.options if o.path[:-1] == draft.path]
            _write(ctx, formatter, _title(draft), fields)

    def _prepare(self, ctx: click.Context, args: Sequence[str], registry: Registry) -> _Prepared:
        params = [*choice_options(self.scope, DraftConfig(), registry), *self.params]
        seen = survey(params, args, self.context_settings, registry)
        try:
            return self._choose(seen, registry)
        except QsaeError:
            if not ctx.resilient_parsing:
                raise
            empty = DraftConfig()  # shell completion of a line that is not right yet
            return _Prepared(choice_options(self.scope, empty, registry), FieldFlags([], {}), empty, [])

    def _choose(self, seen: Survey, registry: Registry) -> _Prepared:
        values = seen.values
        own = self._base(values) if self._base else []
        files = [read_layer(path) for path in values.get("config") or ()]
        changes = set_layer(values.get("set_") or (), self.scope)
        base = [*own, *files, choice_layer(values, self.scope)]

        def prepare() -> _Prepared:
            draft = merge([*base, changes], registry, coder_required=False)
            choices = choice_options(self.scope, draft, registry)
            reserved = {s for p in (*choices, *self.params) for s in p.opts} | {"--help"}
            covered = [d for d in draft.drafts() if self.scope.covers(d)]
            return _Prepared(choices, field_flags(covered, reserved), draft, base)

        prepared = prepare()
        chosen = any(_chooses(layer, "data") for layer in (*base[len(own) :], changes))
        if "data" in self.scope.slots and not chosen:
            implied = implied_data_source(seen.flags - prepared.flags.spellings(), registry)
            if implied:
                base.append(Layer({"data": implied}, style="flags"))
                prepared = prepare()
        return prepared


def _chooses(layer: Layer, slot: str) -> bool:
    block = layer.tree.get(slot)
    return isinstance(block, str) or (isinstance(block, Mapping) and "use" in block)


def _title(draft: Draft) -> str:
    if draft.spec is None:
        return _TITLES[draft.path[0]]
    return f"{draft.title} ({flag(draft.path[0])})"


def _write(
    ctx: click.Context, formatter: click.HelpFormatter, title: str, options: Iterable[click.Option]
) -> None:
    records = [record for option in options if (record := option.get_help_record(ctx))]
    if records:
        with formatter.section(title):
            formatter.write_dl(records, col_max=36)
