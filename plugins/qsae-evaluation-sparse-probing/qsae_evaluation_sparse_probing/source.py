"""Reading a text as Python source: its tokens, and where its variables are bound and read."""

from __future__ import annotations

import ast
import bisect
import tokenize
import warnings
from collections import defaultdict
from collections.abc import Iterator

from qsae_evaluation_sparse_probing.source_tokens import SourceToken, line_starts, source_tokens

BLOCK = "if 1:\n"
"""Stands before a text that begins within an indented block, while it is parsed."""
NAMED = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.ExceptHandler,
    ast.MatchAs,
    ast.MatchStar,
)
"""What binds its ``name``."""
TRIES = 16
"""Lines without indentation, counted from its end, before which a text that is cut may end."""


class Source:
    """A Python text.

    Args:
        tokens: in their order.
        reads: where a variable is read -> its name.
        bound: name -> where it is bound, ascending: assigned, imported, a parameter, a function, a class.
    """

    def __init__(self, tokens: list[SourceToken], reads: dict[int, str], bound: dict[str, list[int]]) -> None:
        self.tokens, self.reads, self.bound = tokens, reads, bound
        self._starts = [token.start for token in tokens]

    def at(self, character: int) -> SourceToken | None:
        """The token that a character is in; None: it is in none."""
        number = bisect.bisect_right(self._starts, character) - 1
        if number < 0 or character >= self.tokens[number].end:
            return None
        return self.tokens[number]

    def bound_between(self, name: str, start: int, end: int) -> bool:
        """Whether a name is bound at ``start`` or behind it, and before ``end``."""
        places = self.bound.get(name, [])
        number = bisect.bisect_left(places, end) - 1
        return number >= 0 and places[number] >= start


def read_source(text: str, *, cut: bool = False) -> Source | None:
    """What a text is as Python source; None where it is none.

    A text that begins with an indented line is read as one that begins within a block. A text of expressions
    alone, as a list of words may be, is not taken for Python.

    Args:
        cut: whether it may end anywhere. What is behind its last complete top-level statement is left out.
    """
    if "\r" in text.replace("\r\n", ""):  # the parser counts lines as the tokenizer does not
        return None
    shift = len(BLOCK) if text.lstrip("\n")[:1] in (" ", "\t") else 0
    whole = (BLOCK if shift else "") + text
    tree = _parsed(whole)
    if tree is None and cut:
        whole, tree = _complete_part(whole)
    if tree is None:
        return None
    first = tree.body[0] if tree.body else None
    statements = [*first.body, *tree.body[1:]] if shift and isinstance(first, ast.If) else tree.body
    if all(isinstance(node, ast.Expr) for node in statements):
        return None
    return _source(whole, tree, shift)


def _parsed(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes and the like, in other people's source
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what the parser raises
        return None


def _complete_part(text: str) -> tuple[str, ast.Module | None]:
    """The longest part from the beginning that is Python and ends before a line without indentation."""
    ends = [start for start in line_starts(text)[1:] if text[start : start + 1].strip()]
    for end in reversed(ends[-TRIES:]):
        tree = _parsed(text[:end])
        if tree is not None:
            return text[:end], tree
    return text, None


def _source(text: str, tree: ast.Module, shift: int) -> Source | None:
    try:
        tokens = source_tokens(text)
    except (SyntaxError, tokenize.TokenError):  # the tokenizer of Python before 3.12 is not the parser's
        return None
    reads: dict[int, str] = {}
    bound: defaultdict[str, list[int]] = defaultdict(list)
    starts = line_starts(text)
    for node in _outside_strings(tree):
        for name, is_read in _names(node):
            place = _place(node, text, starts) - shift
            if is_read:
                reads[place] = name
            else:
                bound[name].append(place)
    own = [t._replace(start=t.start - shift, end=t.end - shift) for t in tokens if t.start >= shift]
    return Source(own, reads, {name: sorted(places) for name, places in bound.items()})


def _outside_strings(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it but for what is in formatted strings, whose places Python before 3.12 does not
    tell."""
    if not isinstance(node, ast.JoinedStr):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _outside_strings(child)


def _names(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """Names that a node itself binds or reads, and whether it reads them."""
    if isinstance(node, ast.Name):
        if not isinstance(node.ctx, ast.Del):
            yield node.id, isinstance(node.ctx, ast.Load)
    elif isinstance(node, ast.arg):
        yield node.arg, False
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name.partition(".")[0]), False
    elif isinstance(node, NAMED):
        if node.name:
            yield node.name, False
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest, False


def _place(node: ast.AST, text: str, starts: list[int]) -> int:
    """The character that a node begins at; the tree counts bytes within a line."""
    line = starts[node.lineno - 1]  # type: ignore[attr-defined]
    column: int = node.col_offset  # type: ignore[attr-defined]
    written = text[line : line + column]
    if written.isascii():
        return line + column
    return line + len(text[line : line + column].encode()[:column].decode(errors="ignore"))
