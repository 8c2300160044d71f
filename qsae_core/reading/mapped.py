"""Values of a file as a tensor, without reading them."""

from __future__ import annotations

import pathlib

import numpy
import torch
from torch import Tensor

from qsae_core.reading.zips import Entry


def mapped_values(path: pathlib.Path, entry: Entry, dtype: torch.dtype) -> Tensor:
    """``[n]``: the bytes of a stored entry as values of a type. Writing to them does not change the file."""
    if not entry.size:
        return torch.empty(0, dtype=dtype)
    data = numpy.memmap(path, dtype=numpy.uint8, mode="c", offset=entry.start, shape=(entry.size,))
    return torch.from_numpy(data).view(dtype)
