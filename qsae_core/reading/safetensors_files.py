"""Safetensors files of strangers."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qsae_core.errors import ArtifactError
from qsae_core.reading.files import the_file
from qsae_core.reading.mapped import LARGE, mapped_values, values_in_memory
from qsae_core.reading.zips import Entry

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def safetensors_tensors(path: pathlib.Path) -> dict[str, Tensor]:
    """Name -> tensor, a view of the file.

    Raises:
        ArtifactError: if there is no such file, or it is damaged; sizes and places are those of the file.
    """
    return {
        name: mapped_values(path, entry, dtype).view(shape)
        for name, (entry, dtype, shape) in _places(path).items()
    }


def safetensors_in_memory(path: pathlib.Path, *, map_large: bool = False) -> dict[str, Tensor]:
    """Name -> tensor, read into memory of its own, each once and aligned.

    Args:
        map_large: give views of the file for tensors of ``LARGE`` entries and more.

    Raises:
        ArtifactError: as ``safetensors_tensors``.
    """
    found = {}
    for name, (entry, dtype, shape) in _places(path).items():
        maps = map_large and math.prod(shape) >= LARGE
        found[name] = (mapped_values if maps else values_in_memory)(path, entry, dtype).view(shape)
    return found


def safetensors_names(path: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape, from the header alone.

    Raises:
        ArtifactError: as ``safetensors_tensors``.
    """
    return {name: shape for name, (_, _, shape) in _places(path).items()}


def _places(path: pathlib.Path) -> dict[str, tuple[Entry, torch.dtype, tuple[int, ...]]]:
    """Name -> where its bytes are, type and shape, of a header that safetensors itself has checked."""
    try:
        with safe_open(the_file(path), framework="pt") as reader, path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length))
            return {name: _place(name, header[name], 8 + length) for name in reader.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(
            f"cannot be read ({' '.join(str(error).split())[:200]})",
            where=str(path),
            allowed=f"a whole safetensors file, with tensors of types {', '.join(TYPES)}",
        ) from error


def _place(name: str, entry: dict[str, Any], base: int) -> tuple[Entry, torch.dtype, tuple[int, ...]]:
    dtype, shape, (start, end) = TYPES.get(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
    if dtype is None:
        raise ValueError(f"{name} is of type {entry['dtype']}")
    if math.prod(shape) * dtype.itemsize != end - start:
        raise ValueError(f"{name} has {end - start} bytes for the shape {list(shape)}")
    return Entry(base + start, end - start, end - start), dtype, shape
