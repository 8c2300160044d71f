"""A file or a folder of chunks as one run of rows."""

from __future__ import annotations

import bisect
import collections
import itertools
import os
import pathlib
from collections.abc import Callable

from torch import Tensor

from qsae_core.errors import DataError
from qsae_data_tensors.files import TensorFile, describe_file
from qsae_data_tensors.formats import OPENERS, Mapped, open_mapped

MOST_OPEN = 64
"""Files mapped at the same time: a mapped .npy keeps a file descriptor."""

_Read = Callable[[TensorFile, Tensor, Mapped, int], None]
"""Fills rows from one of a file's rows on."""


class Chunks:
    """The rows of one file, or of a folder's files in name order, numbered through.

    Attributes:
        files: what is known of each.
        rows: of all of them.
        width: of a row, the same in all: d, or L * d where ``layered``.
        layers: L, or 1.
        left_out: names in the folder that were left out because of their suffix.

    Raises:
        DataError: where something is missing, unreadable, empty, of mixed formats or of differing widths.
    """

    def __init__(self, path: str, key: str | None, layered: bool = False) -> None:
        self.path, self.key = pathlib.Path(path).expanduser(), key
        paths, self.left_out = _list_files(self.path)
        self._open: collections.OrderedDict[pathlib.Path, Mapped] = collections.OrderedDict()
        self.files = [describe_file(p, self._map(p), layered) for p in paths]
        self.width, self.layers = self.files[0].width, self.files[0].layers
        for file in self.files:
            if (file.width, file.layers) != (self.width, self.layers):
                raise DataError(
                    f"rows are {file.width} wide, but {self.width} wide in {self.files[0].path.name}",
                    where=str(file.path),
                    allowed="the same width in every chunk",
                )
        self._ends = list(itertools.accumulate(file.rows for file in self.files))
        self.rows = self._ends[-1]
        if self.rows < 2:
            raise DataError(
                "there is only one row",
                where=str(self.path),
                allowed="at least 2: to train and to hold out",
            )

    def read_into(self, rows: Tensor, start: int) -> None:
        """Fill float32 ``[n, d]`` with the rows from ``start`` on; raises DataError if one is not finite."""
        self._fill(rows, start, TensorFile.read_into)

    def copy_into(self, rows: Tensor, start: int) -> None:
        """The same, whatever the rows hold."""
        self._fill(rows, start, TensorFile.copy_into)

    def _fill(self, rows: Tensor, start: int, read: _Read) -> None:
        filled = 0
        index = bisect.bisect_right(self._ends, start)
        while filled < len(rows):
            file, end = self.files[index], self._ends[index]
            first = start + filled - (end - file.rows)
            part = rows[filled : filled + file.rows - first]
            read(file, part, self._map(file.path), first)
            filled, index = filled + len(part), index + 1

    def close(self) -> None:
        """Unmap everything."""
        self._open.clear()

    def _map(self, path: pathlib.Path) -> Mapped:
        if path not in self._open:
            self._open[path] = open_mapped(path, self.key)
            if len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path]


def _list_files(path: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
    """The files to read, in name order, and the names in the folder that are no tensor files."""
    if not os.path.exists(path):  # pathlib's raises where a name is too long
        raise DataError(
            "there is no such file or folder",
            where=str(path),
            allowed=", ".join(OPENERS),
            next=f"give its place with --data-path; relative ones begin at {pathlib.Path.cwd()}",
        )
    if path.is_file():
        return [path], []
    if not path.is_dir():
        raise DataError(
            "this is neither a file nor a folder, but a pipe or a device, which cannot be memory-mapped",
            where=str(path),
            allowed=", ".join(OPENERS),
            next="write what it gives into a file first",
        )
    visible = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    paths = [p for p in visible if p.suffix in OPENERS]
    suffixes = sorted({p.suffix for p in paths})
    if not paths:
        raise DataError(
            "the folder holds no tensor files",
            where=str(path),
            allowed=", ".join(OPENERS),
            next="give the folder that holds the files themselves; folders inside of it are not read",
        )
    if len(suffixes) > 1:
        raise DataError(
            f"the folder holds files of several formats ({', '.join(suffixes)})",
            where=str(path),
            allowed="chunks of one format, so that none is read twice",
            next="leave the files of one format in the folder, or give one file",
        )
    return paths, [p.name for p in visible if p.suffix not in OPENERS]


def check_paired(source: Chunks, target: Chunks) -> None:
    """Raise a DataError unless both have the same number of rows."""
    if source.rows == target.rows:
        return
    where, what = str(target.path), f"{target.rows} target rows for {source.rows} source rows"
    if len(source.files) == len(target.files):
        for ours, theirs in zip(source.files, target.files, strict=True):
            if ours.rows != theirs.rows:
                where, what = (
                    f"{theirs.path}",
                    f"{theirs.rows} target rows for {ours.rows} rows in {ours.path}",
                )
                break
    raise DataError(
        what,
        where=where,
        allowed="one target row for each source row, in the same order",
        next="save both sides of the same tokens; files of a folder pair up in the order of their names",
    )


__all__ = ["Chunks", "TensorFile", "check_paired"]
