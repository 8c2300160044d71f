"""Documents: where text comes from, and which of it is held out.

Nothing here needs torch. A document is the unit of shuffling and of the split between training and
held-out text: the decision hangs on a hash of the document's key alone, so it is the same in the script
that trains the built-in language model, in training, in evaluation, and on every machine.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HELD_OUT_SHARE = 0.05
"""The share of documents that the built-in language model never saw in its own training."""

_NOT_SOURCE = {
    "site-packages",
    "dist-packages",
    "__pycache__",
    "test",
    "tests",
    "idle_test",
    "encodings",  # character tables rather than code
}
_TOPICS = "pydoc_data/topics.py"


class Document(NamedTuple):
    """A text and what decides on which side of the split it is."""

    key: str
    """What the split is decided by: a relative path, or a hash of the text where there is no path."""
    text: str
    """The text, not empty."""
    spans: tuple[tuple[int, int], ...] | None = None
    """Where characters stand that count, ascending: from, and up to before. The rest is read alone. None: all
    count, and what spells a special token is text like any other."""


def hash_of(key: str) -> float:
    """A number in [0, 1) that is the same for a key everywhere."""
    digest = hashlib.blake2b(key.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def is_held_out(key: str, share: float = HELD_OUT_SHARE) -> bool:
    """Whether the document with this key belongs to the held-out text.

    The key's hash is compared with `share`; a document that is held out at one share is therefore held
    out at every larger one.
    """
    return hash_of(key) < share


def builtin_documents(stdlib: Path | None = None) -> Iterator[Document]:
    """The Python standard library's own source and documentation, in the order of their paths.

    Source: every module outside tests, installed packages and character tables; its key is the path
    below the standard library's directory. Documentation: the topics of `pydoc`, one document each.
    """
    root = stdlib or Path(sysconfig.get_path("stdlib"))
    for relative in sorted(_modules(root)):
        with tokenize.open(root / relative) as file:
            text = file.read()
        if relative == _TOPICS:
            yield from _topics(text)
        elif text.strip():
            yield Document(relative, text)


def _modules(root: Path) -> Iterator[str]:
    """Paths of modules below the root; never enters the directories that are left out."""
    for directory, below, files in os.walk(root):
        below[:] = [name for name in below if name not in _NOT_SOURCE]
        for name in files:
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                yield Path(directory, name).relative_to(root).as_posix()


def _topics(source: str) -> Iterator[Document]:
    """The language reference's pages, out of the one dictionary that `pydoc` keeps them in."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for name, text in ast.literal_eval(node.value).items():
                if text.strip():
                    yield Document(f"{_TOPICS}#{name}", text)
