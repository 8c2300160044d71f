"""pydantic's complaints about a draft -> one ConfigError that names place, value, and what would be taken."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from qsae_core.component import ComponentConfig
from qsae_core.config.draft import Draft
from qsae_core.config.layers import flag
from qsae_core.config.schema import field_schemas
from qsae_core.errors import ConfigError

_PREFIX = "Input should be "
Options = TypeVar("Options", bound=ComponentConfig)


def validate(draft: Draft) -> ComponentConfig:
    """The draft's options as its schema's instance.

    Raises:
        ConfigError: with the place of every option that does not fit; the first one leads.
    """
    for option, value in draft.options.items():
        if isinstance(value, bool) and not _admits_bool(draft.schema, option):
            text = f"Input should not be true or false (got {value})"
            raise ConfigError(
                text, where=draft.place(option), allowed=_allowed(draft, option), next=_described(draft)
            )
    try:
        return draft.schema.model_validate(draft.options)
    except ValidationError as error:
        raise in_words(error, draft) from None


def in_words(error: ValidationError, draft: Draft) -> ConfigError:
    """The error for a draft's options, or what became of them."""
    by_option = itertools.groupby(error.errors(include_url=False), key=lambda e: e["loc"][:1])
    errors = [_option_error(draft, [str(k) for k in loc], list(group)) for loc, group in by_option]
    first, *rest = errors
    first.what = "\n".join([first.what, *(f"{e.where}: {e.what}" for e in rest)])
    if rest:
        first.allowed = "; ".join(f"{e.where}: {e.allowed}" for e in errors if e.allowed) or None
    return first


def checked_options(title: str, schema: type[Options], given: Mapping[str, Any], place: str) -> Options:
    """Options of a schema that is no component's, as a command reads them from a file of its own.

    Args:
        title: what errors call the whole of them.
        place: where the options stand, as errors show it: ``sweep.yaml: quantized.gptq``.

    Raises:
        ConfigError: with the place of every option that does not fit.
    """
    origins = {option: f"{place}.{option}" for option in given}
    checked = validate(Draft((title,), schema, None, dict(given), origins))
    assert isinstance(checked, schema)
    return checked


def _option_error(draft: Draft, loc: Sequence[str], errors: Sequence[ErrorDetails]) -> ConfigError:
    if not loc:  # a rule about several options together
        fault = errors[0].get("ctx", {}).get("error")
        if exclusive := getattr(fault, "exclusive", ()):
            return _exclusive_error(draft, exclusive, errors[0])
        places = ", ".join(draft.origins.values()) if len(draft.origins) <= 3 else ""
        allowed = getattr(fault, "allowed", None)
        where = places or ".".join(draft.path)
        return ConfigError(_message(errors[0]), where=where, allowed=allowed, next=_described(draft))
    option = loc[0]
    if any(e["type"] == "extra_forbidden" for e in errors) and option not in draft.schema.model_fields:
        return unknown_option(draft, option)
    if errors[0]["type"] == "missing" and len(errors[0]["loc"]) == 1:
        return ConfigError(
            f"{draft.title} needs a value for '{option}'",
            where=".".join((*draft.path, option)),
            next=f"add {flag(*draft.path, option)} VALUE",
        )
    value, inner = _value_at(draft.options, errors[0]["loc"])
    messages = list(dict.fromkeys(_message(e) for e in errors))
    if len(messages) > 1 and all(m.startswith(_PREFIX) for m in messages):
        messages = [_PREFIX + " or ".join(m.removeprefix(_PREFIX) for m in messages)]
    where = draft.place(option) + "".join(f".{key}" for key in inner)
    return ConfigError(
        f"{'; '.join(messages)} (got {_shown(value)})",
        where=where,
        allowed=_allowed(draft, option),
        next=_described(draft),
    )


def _exclusive_error(draft: Draft, options: Sequence[str], error: ErrorDetails) -> ConfigError:
    """Of options that exclude one another; one of them may stand in a file that the user has not in mind."""
    of_one = len({draft.place(option).rpartition(": ")[0] for option in options}) == 1
    hidden = [o for o in options if not of_one and not draft.place(o).startswith("--")]
    steps = [
        f"{flag(*draft.path, option)} changes what {draft.place(option)} says, and "
        f"--set {'.'.join((*draft.path, option))}=null drops it"
        for option in hidden
    ]
    return ConfigError(
        _message(error),
        where=" and ".join(draft.place(option) for option in options),
        allowed=error["ctx"]["error"].allowed,
        next="; ".join(steps) or "leave one of them out",
    )


def _allowed(draft: Draft, option: str) -> str:
    return field_schemas(draft.schema)[option].words


def _described(draft: Draft) -> str:
    """The command that shows all options of a component or a section."""
    return f"qsae describe {draft.spec.kind} {draft.spec.name}" if draft.spec else "qsae train --help"


def unknown_option(draft: Draft, option: str) -> ConfigError:
    """The error for an option that the draft's schema lacks, with the one that was probably meant."""
    fields = draft.schema.model_fields
    spellings = {alias: name for name in fields for alias in (*flag_aliases(draft.schema, name), name)}
    close = difflib.get_close_matches(option.replace("_", "-"), [s.replace("_", "-") for s in spellings], n=1)
    meant = next((name for s, name in spellings.items() if [s.replace("_", "-")] == close), None)
    return ConfigError(
        f"{draft.title} has no option '{option}'" + (f"; did you mean '{meant}'?" if meant else ""),
        where=draft.place(option),
        allowed=", ".join(fields) or "(it has no options)",
        next=_described(draft),
    )


def flag_aliases(schema: type[ComponentConfig], option: str) -> list[str]:
    """Other flag spellings that an option declares, without dashes."""
    extra = schema.model_fields[option].json_schema_extra
    aliases = extra.get("flags", []) if isinstance(extra, dict) else []
    return [str(alias) for alias in aliases] if isinstance(aliases, list) else []


def _admits_bool(schema: type[ComponentConfig], option: str) -> bool:
    info = schema.model_fields.get(option)
    if info is None:
        return True  # an unknown option has an error of its own
    return _mentions_bool(info.annotation)


def _mentions_bool(annotation: Any) -> bool:
    if annotation in (bool, Any, object):
        return True
    arguments = get_args(annotation)
    return any(isinstance(a, bool) or _mentions_bool(a) for a in arguments)


def _message(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "string_pattern_mismatch":
        return "Input should be of the form that is allowed"  # which is said in words there
    if error["type"].endswith("_parsing"):
        return error["msg"].partition(", unable to")[0]
    return error["msg"]


def _value_at(options: Mapping[str, Any], loc: Sequence[Any]) -> tuple[Any, list[str]]:
    """The offending value and the keys to it below the option; pydantic's tags for unions are no keys."""
    value: Any = options.get(loc[0])
    inner: list[str] = []
    for key in loc[1:]:
        in_list = isinstance(value, (list, tuple)) and isinstance(key, int) and key < len(value)
        if in_list or (isinstance(value, Mapping) and key in value):
            value = value[key]
            inner.append(str(key))
    return value, inner


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
