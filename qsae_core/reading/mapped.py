"""Values of a file as a tensor: mapped, without reading them, or read into memory."""

from __future__ import annotations

import mmap
import pathlib
import weakref

import numpy
import torch
from torch import Tensor

from qsae_core.reading.zips import Entry

_MAPS: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()
"""Where the values of a mapped tensor begin -> its map."""


def mapped_values(path: pathlib.Path, entry: Entry, dtype: torch.dtype) -> Tensor:
    """``[n]``: the bytes of a stored entry as values of a type. Writing to them does not change the file."""
    if not entry.size:
        return torch.empty(0, dtype=dtype)
    data = numpy.memmap(path, dtype=numpy.uint8, mode="c", offset=entry.start, shape=(entry.size,))
    values = torch.from_numpy(data).view(dtype)
    _MAPS[values.untyped_storage().data_ptr()] = data._mmap  # type: ignore[attr-defined]
    return values


def let_go(tensor: Tensor) -> None:
    """Give back the memory that reading a mapped tensor has taken.

    It is read from the file again where it is used again; what was written to it is lost. Does nothing to
    other tensors, nor where the system knows no such thing.
    """
    found = _MAPS.get(tensor.untyped_storage().data_ptr())
    if found is not None and hasattr(mmap, "MADV_DONTNEED"):
        found.madvise(mmap.MADV_DONTNEED)


def values_in_memory(path: pathlib.Path, entry: Entry, dtype: torch.dtype) -> Tensor:
    """``[n]``: the bytes of a stored entry, read.

    Raises:
        OSError: if they cannot be.
    """
    data = numpy.fromfile(path, numpy.uint8, count=entry.size, offset=entry.start)
    if data.size != entry.size:
        raise OSError(f"{path} ends early")
    return torch.from_numpy(data).view(dtype) if entry.size else torch.empty(0, dtype=dtype)
