"""Values of a file as a tensor: mapped, without reading them, or read into memory; and large tensors that are
kept in a file while they are worked on."""

from __future__ import annotations

import math
import mmap
import pathlib
import tempfile
import weakref

import numpy
import torch
from torch import Tensor

from qsae_core.reading.zips import Entry

_MAPS: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()
"""Where the values of a mapped tensor begin -> its map."""
LARGE = 2**26
"""Entries from which on a matrix is not copied or kept as floats beside its stored form: 256 MiB of them."""
ROWS_AT_ONCE = 512
"""Of rows anywhere in a mapped matrix, near ones after one another: pages beside them are mapped too."""
BLOCK_BYTES = 2**24
"""Of a file, that are written at once."""


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

    It is read from the file again where it is used again. What was written to a tensor of a file is lost;
    to one that is kept ``on_disk``, it stays. Does nothing to other tensors, nor where the system knows no
    such thing.
    """
    found = _MAPS.get(tensor.untyped_storage().data_ptr())
    if found is not None and hasattr(mmap, "MADV_DONTNEED"):
        found.madvise(mmap.MADV_DONTNEED)


def all_finite(part: Tensor) -> bool:
    """Whether no entry is NaN or infinite; memory that reading it has taken is given back."""
    finite = bool(part.isfinite().all())
    let_go(part)
    return finite


class _Scratch(mmap.mmap):
    """A map of a file without a name, which is gone with it."""

    folder: pathlib.Path


def on_disk(shape: tuple[int, ...], folder: pathlib.Path) -> Tensor:
    """float32 zeros, kept in a file without a name in a folder: what was let go of it takes no memory.

    Raises:
        OSError: if there is no room for it.
    """
    n_bytes = 4 * math.prod(shape)
    with tempfile.TemporaryFile(dir=folder) as file:
        for start in range(0, n_bytes, BLOCK_BYTES):  # a full disk is an error now, and none later
            file.write(bytes(min(BLOCK_BYTES, n_bytes - start)))
        file.flush()
        scratch = _Scratch(file.fileno(), n_bytes)
    scratch.folder = folder
    values = torch.frombuffer(scratch, dtype=torch.float32)
    _MAPS[values.untyped_storage().data_ptr()] = scratch
    return values.view(shape)


def beside(tensor: Tensor) -> Tensor:
    """A tensor of the shape and type of another one, with any contents: on disk, where that one is."""
    found = _MAPS.get(tensor.untyped_storage().data_ptr())
    if isinstance(found, _Scratch) and tensor.dtype == torch.float32:
        return on_disk(tuple(tensor.shape), found.folder)
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def rows_of(tensor_FD: Tensor, rows_R: Tensor) -> Tensor:
    """``[R, D]``: these rows; of a tensor that is mapped, some at a time, whose memory is given back."""
    if not is_mapped(tensor_FD):
        return tensor_FD[rows_R]
    found_RD = tensor_FD.new_empty(rows_R.numel(), tensor_FD.shape[1])
    for place in rows_R.argsort().split(ROWS_AT_ONCE):
        found_RD[place] = tensor_FD[rows_R[place]]
        let_go(tensor_FD)
    return found_RD


def put_rows(tensor_FD: Tensor, rows_R: Tensor, values_RD: Tensor) -> None:
    """Write rows; to a tensor that is on disk, some at a time, whose memory is given back."""
    if not is_mapped(tensor_FD):
        tensor_FD[rows_R] = values_RD
        return
    for place in rows_R.argsort().split(ROWS_AT_ONCE):
        tensor_FD[rows_R[place]] = values_RD[place]
        let_go(tensor_FD)


def is_mapped(tensor: Tensor) -> bool:
    """Whether it is a view of a file."""
    return tensor.untyped_storage().data_ptr() in _MAPS


def values_in_memory(path: pathlib.Path, entry: Entry, dtype: torch.dtype) -> Tensor:
    """``[n]``: the bytes of a stored entry, read.

    Raises:
        OSError: if they cannot be.
    """
    data = numpy.fromfile(path, numpy.uint8, count=entry.size, offset=entry.start)
    if data.size != entry.size:
        raise OSError(f"{path} ends early")
    return torch.from_numpy(data).view(dtype) if entry.size else torch.empty(0, dtype=dtype)
