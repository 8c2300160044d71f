"""Documents out of text files. Nothing here needs torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qsae_core.errors import DataError
from qsae_data_lm.corpus import Document

WANTED = "a file of UTF-8 text, or a folder that holds such files"
ROWS = (".jsonl", ".parquet", ".arrow")
"""Endings of files that are no text by themselves."""
CHUNK = 2000
"""Characters after which a file is cut at the next blank line; a single long text thus has a split too."""


def read_text(text: str) -> tuple[list[Document], dict[str, Any]]:
    """All documents of a text file, or of the text files below a folder, and what is to be said about them.

    Hidden files, and binary ones (which hold a NUL byte), are left out; the description counts the latter.

    Raises:
        DataError: if there is no such path, no text in it, or a file is not UTF-8.
    """
    root = Path(text).expanduser()
    if not os.path.exists(root):  # pathlib's raises where a name is too long
        raise DataError(
            f"there is no file or folder {root}",
            where="data.text",
            allowed=WANTED,
            next=f"give its place with --text; relative ones begin at {Path.cwd()}",
        )
    if not root.is_file() and not root.is_dir():
        raise DataError(
            f"{root} is neither a file nor a folder, but a pipe or a device, which cannot be read twice",
            where="data.text",
            allowed=WANTED,
            next="write what it gives into a file first",
        )
    if root.is_file() and root.suffix.lower() in ROWS:
        raise DataError(
            f"{root} holds rows of a data set, whose punctuation and names of columns would be read as text",
            where="data.text",
            allowed=WANTED,
            next=f"--dataset {root}",
        )
    paths = [root] if root.is_file() else sorted(p for p in root.rglob("*") if _is_visible_file(p, root))
    documents: list[Document] = []
    binary = 0
    for path in paths:
        content = path.read_bytes()
        if b"\0" in content:
            binary += 1
            continue
        documents += [Document(chunk, chunk) for chunk in chunks(_decoded(content, path))]
    if not documents:
        raise DataError(
            f"no text in {root}: {len(paths)} files, {binary} of them binary",
            where="data.text",
            allowed=WANTED,
            next="give another place with --text; without it, built-in text is read",
        )
    return documents, {"text": str(root), "files": len(paths) - binary, "binary_files_left_out": binary}


def _is_visible_file(path: Path, root: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 text: byte 0x{content[error.start]:02x} at position {error.start}",
            where=str(path),
            next=f"convert it: iconv -f LATIN1 -t UTF-8 {path}",
        ) from error


def chunks(text: str, size: int = CHUNK) -> Iterator[str]:
    """Pieces of about `size` characters that end at a blank line, at twice the size at any line's end.

    Joined, they are the text again; only pieces of white space are dropped. A line that is longer than
    twice the size is cut where it is.
    """
    piece: list[str] = []
    length = 0
    for line in _short_lines(text, 2 * size):
        if length and length + len(line) > 2 * size:
            yield from _if_any("".join(piece))
            piece, length = [], 0
        piece.append(line)
        length += len(line)
        if length >= size and not line.strip():
            yield from _if_any("".join(piece))
            piece, length = [], 0
    yield from _if_any("".join(piece))


def _short_lines(text: str, limit: int) -> Iterator[str]:
    for line in text.splitlines(keepends=True):
        for start in range(0, len(line), limit):
            yield line[start : start + limit]


def _if_any(text: str) -> Iterator[str]:
    if text.strip():
        yield text
