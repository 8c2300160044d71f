"""What a browser may send: JSON objects, read into what is asked. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from qsae_splice import AnyEdit, read_edits

from qsae_core.errors import ConfigError, did_you_mean

LARGEST_SEED = 2**63 - 1
LARGEST_VALUE = 1e6
"""Of an edit, in any unit: beyond it numbers of float32 may overflow on their way through a model."""
FIELDS = ("prompt", "edits", "max_new_tokens", "temperature", "seed")
Number = (int, float)


@dataclass(frozen=True)
class Continuation:
    """A text that is to be gone on with, steered and unsteered.

    Attributes:
        prompt: the text.
        edits: in the order in which they are applied.
        max_new_tokens: of each of the two.
        temperature: 0: always the likeliest token.
        seed: of what is drawn; of both the same.
    """

    prompt: str
    edits: tuple[AnyEdit, ...] = ()
    max_new_tokens: int = 40
    temperature: float = 0.0
    seed: int = 0


def parsed(body: bytes) -> dict[str, Any]:
    """A request's object.

    Raises:
        ConfigError: if it is none.
    """
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"the body is no JSON: {error}", where="body", allowed="an object in UTF-8"
        ) from error
    if not isinstance(found, dict):
        raise ConfigError(f"the body is {_kind(found)}", where="body", allowed="an object")
    return found


def read_text(body: Mapping[str, Any]) -> str:
    """The text of a request for latents.

    Raises:
        ConfigError: if there is none.
    """
    _check_fields(body, ("text",))
    return _text(body, "text")


def read_continuation(body: Mapping[str, Any]) -> Continuation:
    """What a request to steer asks for.

    Raises:
        ConfigError: for a field that there is not, or a value that it does not take.
    """
    _check_fields(body, FIELDS)
    usual = Continuation("")
    edits = body.get("edits", [])
    if not isinstance(edits, list):
        raise ConfigError(f"edits is {_kind(edits)}", where="edits", allowed="a list of objects")
    read = read_edits(edits, "body")
    for edit in read:
        if edit.value is not None and abs(edit.value) > LARGEST_VALUE:
            allowed = f"{-LARGEST_VALUE:,.0f} to {LARGEST_VALUE:,.0f}"
            raise ConfigError(f"the value is {edit.value:g}", where=str(edit), allowed=allowed)
    temperature = body.get("temperature", usual.temperature)
    if not _is(temperature, Number) or not math.isfinite(temperature) or temperature < 0:
        raise _refused("temperature", temperature, "a number of 0 or more")
    return Continuation(
        _text(body, "prompt"),
        read,
        _whole(body, "max_new_tokens", usual.max_new_tokens, least=1),
        float(temperature),
        _whole(body, "seed", usual.seed),
    )


def _check_fields(body: Mapping[str, Any], fields: Collection[str]) -> None:
    for name in body:
        if name not in fields:
            hint = did_you_mean(name, list(fields))
            raise ConfigError(f"there is no field {name!r}{hint}", where="body", allowed=", ".join(fields))


def _text(body: Mapping[str, Any], name: str) -> str:
    text = body.get(name)
    if not isinstance(text, str):
        raise ConfigError(f"{name} is {_kind(text)}", where=name, allowed="a text")
    if not text:
        raise ConfigError("the text is empty", where=name, allowed="a text of at least one character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError("the text has half a character in it", where=name, allowed="Unicode") from error
    return text


def _whole(body: Mapping[str, Any], name: str, usual: int, least: int = 0) -> int:
    number = body.get(name, usual)
    if not _is(number, int) or not least <= number <= LARGEST_SEED:
        raise _refused(name, number, f"a whole number from {least} to {LARGEST_SEED}")
    return int(number)


def _is(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _refused(name: str, value: object, allowed: str) -> ConfigError:
    shown = repr(value) if _is(value, Number) else _kind(value)
    return ConfigError(f"{name} is {shown}", where=name, allowed=allowed)


def _kind(value: object) -> str:
    if value is None:
        return "not there"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
