"""The tokens of Python source, and what each stands in."""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

OPENS, CLOSES = "([{", ")]}"
KINDS = {
    tokenize.NAME: "name",
    tokenize.NUMBER: "number",
    tokenize.STRING: "string",
    tokenize.COMMENT: "comment",
    tokenize.OP: "operator",
}
STRING_PARTS: dict[int, int] = {
    getattr(tokenize, name): step
    for name, step in (("FSTRING_START", 1), ("FSTRING_END", -1), ("TSTRING_START", 1), ("TSTRING_END", -1))
    if hasattr(tokenize, name)
}
"""From Python 3.12 on a formatted string is several tokens; here it is one in every version."""


class SourceToken(NamedTuple):
    """A token of Python source."""

    kind: str
    """``name``, ``keyword``, ``number``, ``string``, ``comment`` or ``operator``."""
    start: int
    """Its first character."""
    end: int
    """The character behind it."""
    depth: int
    """Pairs of brackets that it is between; a bracket is outside its own pair."""
    in_header: bool
    """Whether it is of a function's header: from ``def`` up to the colon."""
    begins_line: bool
    """Whether nothing but white space stands before it in its line."""
    after: str
    """The two tokens before it, joined, as far as these are names, keywords and operators: ``self.``."""


def line_starts(text: str) -> list[int]:
    """Where each line begins."""
    return [0, *(i + 1 for i, character in enumerate(text) if character == "\n")]


def source_tokens(text: str) -> list[SourceToken]:
    """The tokens of a text, without those of line ends and indentation.

    Raises:
        SyntaxError, tokenize.TokenError: if it is not Python.
    """
    found: list[SourceToken] = []
    depth, header = 0, -1  # header: the depth that the current function header began at
    before = ("", "")
    for kind, start, end, begins_line in _whole_tokens(text):
        written = text[start:end] if kind in ("name", "operator") else ""
        if kind == "name" and keyword.iskeyword(written):
            kind = "keyword"
            header = depth if written == "def" else header
        if kind == "operator" and written in CLOSES:
            depth -= 1
        found.append(SourceToken(kind, start, end, depth, header >= 0, begins_line, "".join(before)))
        if kind == "operator" and written in OPENS:
            depth += 1
        if written == ":" and depth == header:
            header = -1
        if kind != "comment":
            before = before[1], written
    return found


def _whole_tokens(text: str) -> Iterator[tuple[str, int, int, bool]]:
    """(kind, start, end, whether it begins its line) of each token; a formatted string is one."""
    starts = line_starts(text)
    parts, first = 0, 0  # formatted strings that are open, and where the outermost began
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        step = STRING_PARTS.get(token.type, 0)
        if step > 0 and not parts:
            first = starts[token.start[0] - 1] + token.start[1]
        parts += step
        kind = "string" if step else KINDS.get(token.type)
        if kind is None or parts:
            continue
        end = starts[token.end[0] - 1] + token.end[1]
        start = first if step else starts[token.start[0] - 1] + token.start[1]
        line = text.rfind("\n", 0, start) + 1
        yield kind, start, end, not text[line:start].strip()
