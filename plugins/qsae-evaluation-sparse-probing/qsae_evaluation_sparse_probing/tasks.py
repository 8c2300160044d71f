"""The properties that probes are to tell, of one token of the language model each.

A token of the language model is taken for the token of the source that its first character is in, white space
aside. Tokens of white space alone are of no task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from qsae_evaluation_sparse_probing.source import Source
from qsae_evaluation_sparse_probing.source_tokens import SourceToken
from qsae_evaluation_sparse_probing.spelling import Spelled

NO_TASK, NEGATIVE, POSITIVE = -1, 0, 1


class Seen(NamedTuple):
    """What a task is asked about."""

    token: SourceToken
    """The token of the source."""
    begins: bool
    """Whether the language model's token has its first character."""
    source: Source
    window: int
    """The first character of the document that the language model reads in the same context."""


def _keyword(seen: Seen) -> bool | None:
    if not seen.begins or seen.token.kind not in ("name", "keyword"):
        return None
    return seen.token.kind == "keyword"


def _string(seen: Seen) -> bool | None:
    return None if seen.token.kind == "comment" else seen.token.kind == "string"


def _comment(seen: Seen) -> bool | None:
    return seen.token.kind == "comment"


def _in_code(seen: Seen) -> bool:
    return seen.token.kind not in ("string", "comment")


def _def_header(seen: Seen) -> bool | None:
    return seen.token.in_header if _in_code(seen) else None


def _brackets(seen: Seen) -> bool | None:
    return seen.token.depth >= 2 if _in_code(seen) else None


def _line_start(seen: Seen) -> bool | None:
    return seen.token.begins_line if _in_code(seen) and seen.begins else None


def _number(seen: Seen) -> bool | None:
    return seen.token.kind == "number" if _in_code(seen) else None


def _defined(seen: Seen) -> bool | None:
    name = seen.source.reads.get(seen.token.start)
    if name is None or not seen.begins:
        return None
    return seen.source.bound_between(name, seen.window, seen.token.start)


def _after_self(seen: Seen) -> bool | None:
    if not seen.begins or seen.token.kind != "name" or not seen.token.after.endswith("."):
        return None
    return seen.token.after == "self."


TASKS: dict[str, Callable[[Seen], bool | None]] = {
    "keyword": _keyword,
    "string": _string,
    "comment": _comment,
    "def-header": _def_header,
    "brackets": _brackets,
    "line-start": _line_start,
    "number": _number,
    "defined": _defined,
    "after-self": _after_self,
}
"""Name -> whether a token has the property; None where the question is not asked of it."""


def labels_of(spelled: Spelled, source: Source, contexts: list[int]) -> list[list[int]]:
    """For each token of a document, and each of ``TASKS``: ``NO_TASK``, ``NEGATIVE`` or ``POSITIVE``.

    Args:
        contexts: of each token, the context that the language model read it in; ascending.
    """
    found: list[list[int]] = []
    window, context = 0, None
    for (start, end), number in zip(spelled.spans, contexts, strict=True):
        if number != context:
            window, context = start, number
        written = spelled.text[start:end]
        first = start + len(written) - len(written.lstrip())
        token = source.at(first) if first < end else None
        if token is None:
            found.append([NO_TASK] * len(TASKS))
            continue
        seen = Seen(token, first == token.start, source, window)
        answers = (task(seen) for task in TASKS.values())
        found.append([NO_TASK if answer is None else int(answer) for answer in answers])
    return found
