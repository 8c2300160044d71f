"""What a field of a pydantic schema takes: types, choices, bounds. Flags, help and errors say it alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qsae_core.component import ComponentConfig
from qsae_core.config.layers import parse_yaml
from qsae_core.errors import ConfigError

_WORDS = {"array": "list", "object": "mapping", "string": "text", "boolean": "true or false"}
_METAVARS = {"integer": "INTEGER", "number": "NUMBER", "string": "TEXT", "boolean": "true|false"}


@dataclass(frozen=True)
class FieldSchema:
    """What a field's JSON schema says, with references and unions resolved.

    Attributes:
        types: JSON types that it admits besides its choices: ``integer``, ``null``, ``array``, ...
        choices: values that it admits by name (Literal, Enum).
        bounds: constraints for people: ``above 0``, ``0 to 1``.
        form: all of that in the option's own words, where it declares them (``option(allowed=...)``).
    """

    types: frozenset[str]
    choices: tuple[Any, ...] = ()
    bounds: tuple[str, ...] = ()
    form: str | None = None

    @property
    def is_flag(self) -> bool:
        """Whether a value fits on a command line: a scalar or a choice, alone or among other forms."""
        return bool(self.choices or self.types & set(_METAVARS))

    @property
    def is_switch(self) -> bool:
        """Whether it is true or false and nothing else."""
        return self.types == {"boolean"} and not self.choices

    @property
    def metavar(self) -> str:
        """``INTEGER``, ``[fp32|bf16]``, ``NUMBER|auto``."""
        names = [_METAVARS[t] for t in ("boolean", "integer", "number", "string") if t in self.types]
        none = ["none"] if "null" in self.types and "string" not in self.types else []
        words = "|".join([*names, *map(shown, self.choices), *none])
        return words if names else f"[{words}]"

    @property
    def words(self) -> str:
        """``integer, 1 to 8``; ``number or auto, above 0``; or the option's own form."""
        if self.form is not None:
            return self.form
        names = sorted(_WORDS.get(t, t) for t in self.types - {"null"}) + (
            ["none"] if "null" in self.types else []
        )
        return ", ".join([" or ".join([*names, *map(shown, self.choices)]), *self.bounds])

    def read(self, text: str) -> Any:
        """The value that a flag's text stands for; what does not fit is left for validation to refuse."""
        if text in self.choices:
            return text
        if "null" in self.types and text.lower() in ("none", "null"):
            return None
        if "string" in self.types:
            return text
        try:
            value = parse_yaml(text, "value")
        except ConfigError:
            return text
        nested = {"array": list, "object": dict}
        fits = not isinstance(value, (list, dict)) or any(
            isinstance(value, nested.get(t, ())) for t in self.types
        )
        return value if fits and value is not None else text


def field_schemas(config: type[ComponentConfig]) -> dict[str, FieldSchema]:
    """Field name -> schema, in the order of the class."""
    schema = config.model_json_schema()
    definitions = schema.get("$defs", {})
    return {
        name: replace(_read_schema(entry, definitions), form=entry.get("allowed"))
        for name, entry in schema.get("properties", {}).items()
    }


def _read_schema(entry: Mapping[str, Any], definitions: Mapping[str, Any]) -> FieldSchema:
    if "$ref" in entry:
        return _read_schema(definitions[entry["$ref"].rpartition("/")[2]], definitions)
    for union in ("anyOf", "oneOf", "allOf"):
        if union in entry:
            parts = [_read_schema(part, definitions) for part in entry[union]]
            return FieldSchema(
                frozenset().union(*(p.types for p in parts)),
                tuple(dict.fromkeys(c for p in parts for c in p.choices)),
                tuple(dict.fromkeys(b for p in parts for b in p.bounds)),
            )
    choices = entry.get("enum", [entry["const"]] if "const" in entry else [])
    if choices:
        return FieldSchema(frozenset(), tuple(choices))
    types = entry.get("type", [])
    return FieldSchema(frozenset([types] if isinstance(types, str) else types), (), _bounds(entry))


def _bounds(entry: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = entry.get("minimum"), entry.get("maximum")
    if low is not None and high is not None:
        return (f"{shown(low)} to {shown(high)}",)
    limits = (
        ("above", entry.get("exclusiveMinimum")),
        ("at least", low),
        ("below", entry.get("exclusiveMaximum")),
        ("at most", high),
    )
    words = [f"{word} {shown(limit)}" for word, limit in limits if limit is not None]
    return (" and ".join(words),) if words else ()


def shown(value: Any) -> str:
    """A value as it would be written in YAML."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
