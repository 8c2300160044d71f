"""Shards: safetensors files of a store. Shapes: N vectors, D width, C contexts, T positions, K blocks.

A shard holds the counted positions of some contexts: a training shard in random order, so that a block of
neighbours in it is a sample of all of them, a held-out shard in the text's. For each place of the language
model (``9.resid_post``) it has

    9.resid_post          [N, D]       the vectors; for int8 their codes, and
    9.resid_post.scale    float32 [N]  the scale of each
    9.resid_post.crc32    int64 [K]    the CRC-32 of each ``BLOCK`` vectors (codes, then scales)

and what they were computed from:

    tokens                int32 [N, 4] token id, document, context and position of each vector
    ids, documents        int32 [C, T] every context, in the text's order
    counted               bool [C, T]  positions that have a vector
    segments              int32 [C, T] parts of a context that do not see each other, where it has several
"""

from __future__ import annotations

import json
import os
import pathlib
import zlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from qsae_core.contracts import Columns
from qsae_core.errors import DataError
from qsae_store.folder import VERIFIED, altered, os_errors

BLOCK = 64
"""Vectors that are read, and whose bytes are checked, together."""
_TYPES: Mapping[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "BOOL": torch.bool,
}
_LONGEST_HEADER = 1 << 20


def checksums(columns: Columns) -> Tensor:
    """int64 ``[K]``: the CRC-32 of each block of the columns' rows."""
    starts = range(0, len(columns[0]), BLOCK)
    return torch.tensor(
        [_crc([column[i : i + BLOCK] for column in columns]) for i in starts], dtype=torch.int64
    )


def _crc(columns: list[Tensor]) -> int:
    found = 0
    for column in columns:
        found = zlib.crc32(_bytes_of(column), found)
    return found


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.contiguous().view(torch.uint8).numpy().data).cast("B")


def write_shard(path: pathlib.Path, tensors: Mapping[str, Tensor]) -> None:
    """One file, whose bytes hang on the tensors alone."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


class _Stored(NamedTuple):
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """Byte of the file."""

    @property
    def row_bytes(self) -> int:
        size = self.dtype.itemsize
        for length in self.shape[1:]:
            size *= length
        return size


class ShardFile:
    """Rows of a shard's tensors, read by their place in the file.

    Read, and not mapped: what is mapped counts in full against a limit of address space, and as resident
    memory once it was touched, so that a store larger than memory would seem to fill it.

    Args:
        mended: ``Folder.mended``.

    Raises:
        DataError: if it is no safetensors file, or is shorter than its header says; if the disk refuses it.
    """

    def __init__(self, path: pathlib.Path, mended: str = VERIFIED) -> None:
        self.path, self._mended = path, mended
        with os_errors(path):
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            with os_errors(path):
                self._tensors = self._header()
        except BaseException:
            os.close(self._file)
            raise

    def _header(self) -> dict[str, _Stored]:
        size = os.fstat(self._file).st_size
        length = int.from_bytes(os.pread(self._file, 8, 0), "little")
        try:
            if length > min(_LONGEST_HEADER, size):
                raise ValueError(f"a header of {length} bytes")
            entries: dict[str, Any] = json.loads(os.pread(self._file, length, 8))
            entries.pop("__metadata__", None)
            found = {
                name: _Stored(
                    _TYPES[entry["dtype"]], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
                )
                for name, entry in entries.items()
            }
            end = 8 + length + max(entry["data_offsets"][1] for entry in entries.values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"is no shard of a store ({error})",
                where=str(self.path),
                allowed="the file as qsae cache wrote it",
                next=self._mended,
            ) from error
        if size != end:
            raise DataError(
                f"has {size:,} bytes and should have {end:,}",
                where=str(self.path),
                allowed="the store as qsae cache wrote it",
                next=self._mended,
            )
        return found

    def has(self, name: str) -> bool:
        """Whether there is a tensor of that name."""
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor.

        Raises:
            DataError: if there is none of that name.
        """
        return self._of(name).shape

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows ``[start, stop)`` of a tensor.

        Raises:
            DataError: if there is none of that name, or not so many rows; if the disk refuses them.
        """
        stored = self._of(name)
        stop = stored.shape[0] if stop is None else stop
        if not 0 <= start <= stop <= stored.shape[0]:
            raise DataError(f"{name} has {stored.shape[0]} rows, not {stop}", where=str(self.path))
        if start == stop:  # memory of no bytes cannot be taken for another type
            return torch.empty(0, *stored.shape[1:], dtype=stored.dtype)
        memory = np.empty((stop - start) * stored.row_bytes, dtype=np.uint8)
        with os_errors(self.path):
            _fill(self._file, memory, stored.start + start * stored.row_bytes, self.path)
        return torch.from_numpy(memory).view(stored.dtype).view(stop - start, *stored.shape[1:])

    def checked_rows(self, names: tuple[str, ...], start: int, stop: int) -> Columns:
        """The same rows of a place's columns, compared with their checksums.

        Args:
            names: the first one is that of the place.
            start: where a block begins.
            stop: where one ends.

        Raises:
            DataError: as ``rows``; if their bytes are others than those that were written.
        """
        columns = tuple(self.rows(name, start, stop) for name in names)
        expected = self.rows(f"{names[0]}.crc32", start // BLOCK, -(-stop // BLOCK))
        if not torch.equal(checksums(columns), expected):
            raise altered(f"{self.path}: {names[0]}, vectors {start} to {stop}", self._mended)
        return columns

    def _of(self, name: str) -> _Stored:
        if name not in self._tensors:
            raise DataError(f"has no tensor {name!r}", where=str(self.path), allowed=", ".join(self._tensors))
        return self._tensors[name]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fill(file: int, memory: np.ndarray, offset: int, path: pathlib.Path) -> None:
    view, done = memoryview(memory.data), 0
    while done < len(view):
        count = os.preadv(file, [view[done:]], offset + done)
        if not count:
            raise DataError("ends before its last row", where=str(path), next="qsae cache verify DIR")
        done += count
