"""Mapping the tensor in a .pt (or .pth), .safetensors or .npy file."""

from __future__ import annotations

import contextlib
import pathlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qsae_core.errors import DataError

SAFETENSORS_FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
ALLOWED_TENSOR = "a float16, bfloat16, float32 or float64 tensor [N, d] or [N, L, d]"


@dataclass(frozen=True)
class Mapped:
    """A tensor in a file whose elements are read when they are sliced.

    Attributes:
        array: what slices: a memory-mapped torch tensor or numpy array, or a safetensors slice.
        shape: its shape.
        dtype: name of its dtype.
    """

    array: Any
    shape: tuple[int, ...]
    dtype: str


def open_mapped(path: pathlib.Path, key: str | None) -> Mapped:
    """Map the tensor in a file; ``key`` names it where there are several.

    Raises:
        DataError: on an unknown suffix, a file that is truncated or of another kind, no or several tensors.
    """
    if path.suffix not in OPENERS:
        raise DataError(
            f"files ending in '{path.suffix}' cannot be read" if path.suffix else "the file has no suffix",
            where=str(path),
            allowed=", ".join(OPENERS),
        )
    if path.stat().st_size == 0:
        raise DataError("the file is empty (0 bytes)", where=str(path), allowed=ALLOWED_TENSOR)
    return OPENERS[path.suffix](path, key)


def _open_npy(path: pathlib.Path, key: str | None) -> Mapped:
    with _unreadable(path, "a complete .npy array"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise DataError("this is an .npz archive, not an .npy array", where=str(path), allowed=ALLOWED_TENSOR)
    if key is not None:
        raise DataError(f"key '{key}' was given, but .npy arrays have no names", where=str(path))
    return Mapped(array, array.shape, array.dtype.name)


def _open_safetensors(path: pathlib.Path, key: str | None) -> Mapped:
    with _unreadable(path, "a complete .safetensors file"):
        file: Any = safe_open(path, framework="pt")
    view = file.get_slice(_choose(path, list(file.keys()), key))
    dtype = view.get_dtype()
    return Mapped(view, tuple(view.get_shape()), SAFETENSORS_FLOATS.get(dtype, dtype))


def _open_pt(path: pathlib.Path, key: str | None) -> Mapped:
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if not is_zip:
        raise DataError(
            "not a file of torch.save's current format, which alone can be memory-mapped",
            where=str(path),
            next="if torch.load can read it, write it anew with torch.save",
        )
    with _unreadable(path, "a tensor written by torch.save"):
        content = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        content = tensors[_choose(path, list(tensors), key)]
    elif key is not None and isinstance(content, Tensor):
        raise DataError(f"key '{key}' was given, but the file's one tensor has no name", where=str(path))
    if not isinstance(content, Tensor):
        raise DataError(
            f"it holds a {type(content).__name__}, not a tensor",
            where=str(path),
            allowed=ALLOWED_TENSOR,
        )
    if content.layout is not torch.strided:
        raise DataError(f"the layout is {content.layout}", where=str(path), allowed="a dense tensor")
    return Mapped(content, tuple(content.shape), str(content.dtype).removeprefix("torch."))


def _choose(path: pathlib.Path, names: list[str], key: str | None) -> str:
    """The tensor to read: the one asked for, or the only one."""
    listed = ", ".join(sorted(names))
    if not names:
        raise DataError("the file holds no tensor", where=str(path), allowed=ALLOWED_TENSOR)
    if key is None and len(names) > 1:
        raise DataError(
            f"the file holds {len(names)} tensors",
            where=str(path),
            allowed=listed,
            next="choose with --data.key",
        )
    if key is not None and key not in names:
        raise DataError(f"the file holds no tensor '{key}'", where=str(path), allowed=listed)
    return names[0] if key is None else key


@contextlib.contextmanager
def _unreadable(path: pathlib.Path, expected: str) -> Iterator[None]:
    """Turn what a reader raises on a damaged or foreign file into a DataError."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise DataError(
            "the file holds objects other than tensors, which are not unpickled (weights_only)",
            where=str(path),
            allowed=expected,
            next="save the tensor alone: torch.save(tensor, path)",
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"the file is truncated or damaged ({reason})",
            where=str(path),
            allowed=expected,
            next="copy or compute the file again",
        ) from error


OPENERS: dict[str, Callable[[pathlib.Path, str | None], Mapped]] = {
    ".pt": _open_pt,
    ".pth": _open_pt,
    ".safetensors": _open_safetensors,
    ".npy": _open_npy,
}
