"""One field of a pydantic schema -> one Click option: its spellings, how its text is read, its help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from qsae_core.config.schema import FieldSchema, shown

NO_VALUE = object()


class _FlagText(click.ParamType):
    """Reads a flag's text by the field's schema."""

    name = "value"

    def __init__(self, schema: FieldSchema) -> None:
        self.schema = schema

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self.schema.read(value) if isinstance(value, str) else value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(shown(c)) for c in self.schema.choices if shown(c).startswith(incomplete)]


class FieldOption(click.Option):
    """A field as a flag: ``--sparsity.k``, ``--k`` and its aliases.

    Args:
        path: where the value goes: ``("sparsity", "k")``.
        schema: the field's.
        long: the spelling that always works, without dashes (``sparsity.k``).
        short: spellings that no other field claims (``k``, ``top-k``).
        description: the field's.
        default: what the value is when the flag is not given; NO_VALUE where one has to be given.
        hide_long: whether help leaves the long spelling out where there is a short one.
    """

    def __init__(
        self,
        path: tuple[str, ...],
        schema: FieldSchema,
        *,
        long: str,
        short: Sequence[str] = (),
        description: str = "",
        default: Any = NO_VALUE,
        hide_long: bool = False,
    ) -> None:
        self.path, self.schema = path, schema
        shown_names = [*short] if short and hide_long else [*short, long]
        self._spelled = ", ".join(f"--{name}" + self._off(name) for name in shown_names)
        extra = [f"default: {shown(default)}" if default is not NO_VALUE else "required", *schema.bounds]
        name = "field_" + "__".join(path).replace("-", "_")
        super().__init__(
            [name, *(f"--{s}" + self._off(s) for s in (long, *short))],
            type=click.BOOL if schema.is_switch else _FlagText(schema),
            default=None,
            help=f"{description}  [{'; '.join(extra)}]".strip(),
        )

    def _off(self, spelling: str) -> str:
        if not self.schema.is_switch:
            return ""
        section, dot, field = spelling.rpartition(".")
        return f"/--{section}{dot}no-{field}"

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Spellings with the metavar, and the help."""
        return self._spelled + ("" if self.schema.is_switch else f" {self.schema.metavar}"), self.help or ""
