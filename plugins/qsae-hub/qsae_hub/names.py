"""Which of a repository's files are meant: patterns of relative paths."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a relative path fits a pattern.

    ``*`` stands for any part of one name, ``**/`` at the beginning for folders, if any, and ``/**`` at the
    end for anything below a folder.
    """
    return any(_fits(path.split("/"), pattern) for pattern in patterns)


def _fits(parts: list[str], pattern: str) -> bool:
    anywhere, below = pattern.startswith("**/"), pattern.endswith("/**")
    wanted = pattern.removeprefix("**/").removesuffix("/**").split("/")
    if below and len(parts) > len(wanted):
        parts = parts[: len(wanted)]
    elif below:
        return False
    elif anywhere:
        parts = parts[-len(wanted) :]
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
