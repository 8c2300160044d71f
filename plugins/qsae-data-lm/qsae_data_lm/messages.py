"""Conversations as datasets hold them: lists of {role, content} or {from, value}. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from qsae_core.errors import DataError

_FORMS = (("role", "content"), ("from", "value"))
_ROLES = {"human": "user", "gpt": "assistant"}
"""Names of the form {from, value} -> those that templates know."""


class Message(NamedTuple):
    """One message."""

    role: str
    content: str
    rest: Mapping[str, Any]
    """What else the template is given: names, tool calls."""


def messages_of(value: Any, where: str) -> list[Message]:
    """The messages of a conversation.

    Raises:
        DataError: with row and message, if it is no list of {role, content} or {from, value} in text.
    """
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise _no_message(where, f"the conversation is a {type(value).__name__}, not a list of messages")
    return [_message(entry, f"{where}: message {n}") for n, entry in enumerate(value)]


def is_conversation(value: Any) -> bool:
    """Whether a column's value looks like messages."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(m, Mapping) and any(set(form) <= set(m) for form in _FORMS) for m in value)
    )


def _message(entry: Any, where: str) -> Message:
    if not isinstance(entry, Mapping):
        raise _no_message(where, f"it is of type {type(entry).__name__}")
    form = next((form for form in _FORMS if entry.get(form[0]) is not None), None)
    if form is None:
        raise _no_message(where, f"it has no role; its keys: {', '.join(map(str, entry)) or 'none'}")
    rest = {k: v for k, v in entry.items() if k not in form and v is not None}
    role, content = entry[form[0]], entry.get(form[1])
    if content is None and rest:  # a call of a tool
        content = ""
    role = _text(role, form[0], where)
    return Message(
        _ROLES.get(role, role) if form[0] == "from" else role, _text(content, form[1], where), rest
    )


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise _no_message(where, f"its {name} is of type {type(value).__name__}, not text")
    return value


def _no_message(where: str, what: str) -> DataError:
    return DataError(
        what,
        where=where,
        allowed="a list of {role, content}, or of {from, value}, each of them text; messages count from 0",
        next="choose another column with --data.dataset-column",
    )
