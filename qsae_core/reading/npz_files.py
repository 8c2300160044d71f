"""Files that ``numpy.savez`` wrote, by strangers."""

from __future__ import annotations

import io
import pathlib
import zipfile
import zlib
from typing import Any

import numpy
import torch
from torch import Tensor

from qsae_core.errors import ArtifactError
from qsae_core.reading.mapped import mapped_values
from qsae_core.reading.zips import Entry, zip_entries

HEADER = 2**16
"""Bytes in which the header of an array has to end."""
ODD = (EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises for entries that it does not read."""
RATIO = 100
"""Of an array's bytes to those that a compressed one may have in the file; weights hardly compress."""
ALLOWED = "arrays of numbers, as numpy.savez writes them"


def npz_tensors(path: pathlib.Path) -> dict[str, Tensor]:
    """Name -> tensor; views of the file, where it is not compressed. Object arrays, which are pickles, are
    refused.

    Raises:
        ArtifactError: if it is damaged, or holds anything but arrays of numbers.
    """
    entries = zip_entries(path, compressed=True)
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                name.removesuffix(".npy"): _array(path, archive, name, entry)
                for name, entry in entries.items()
            }
    except (OSError, ValueError, TypeError, SyntaxError, zipfile.BadZipFile, zlib.error, *ODD) as error:
        what = " ".join(str(error).split())[:200]
        raise ArtifactError(f"cannot be read ({what})", where=str(path), allowed=ALLOWED) from error


def _array(path: pathlib.Path, archive: zipfile.ZipFile, name: str, entry: Entry) -> Tensor:
    if not name.endswith(".npy"):
        raise ValueError(f"{name} is no array")
    with archive.open(name) as member:
        head = io.BytesIO(member.read(min(HEADER, entry.whole)))
        shape, transposed, dtype = _header(head)
        start = head.tell()
        if dtype.hasobject or dtype.kind not in "fiub":
            raise ValueError(f"{name} has values of type {dtype}")
        n_bytes = dtype.itemsize
        for size in shape:
            n_bytes *= size
        if n_bytes != entry.whole - start:
            raise ValueError(
                f"{name} has {entry.whole - start} bytes of values, and its header says {n_bytes}"
            )
        torch_type = torch.from_numpy(numpy.empty(0, dtype=dtype.newbyteorder("="))).dtype
        if entry.is_stored and dtype.isnative and n_bytes:
            values = mapped_values(path, Entry(entry.start + start, n_bytes, n_bytes), torch_type)
        else:
            if entry.whole > RATIO * max(entry.size, HEADER):
                raise ValueError(f"{name} would be {entry.whole} bytes from {entry.size}")
            data = head.read() + member.read(entry.whole)
            if len(data) != n_bytes:
                raise ValueError(f"{name} ends early")
            array = numpy.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
            values = torch.from_numpy(array)
    return (
        values.view(shape[::-1]).permute(*reversed(range(len(shape)))) if transposed else values.view(shape)
    )


def _header(head: io.BytesIO) -> tuple[tuple[int, ...], bool, Any]:
    """Shape, whether columns are together, and type."""
    version = numpy.lib.format.read_magic(head)
    readers = {
        (1, 0): numpy.lib.format.read_array_header_1_0,
        (2, 0): numpy.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"its version is {version}")
    shape, transposed, dtype = readers[version](head)
    if any(size < 0 for size in shape):
        raise ValueError(f"its shape is {list(shape)}")
    return shape, transposed, dtype
