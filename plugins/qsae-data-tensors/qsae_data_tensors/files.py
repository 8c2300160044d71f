"""One tensor on disk, memory-mapped, read as float32 rows. Shapes: N sequences, L positions, d width."""

from __future__ import annotations

import contextlib
import math
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

FLOATS = ("float16", "bfloat16", "float32", "float64")
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


@dataclass(frozen=True)
class TensorFile:
    """What is known of one file without reading its rows.

    Attributes:
        path: the file.
        sequences: N; for a tensor ``[N, d]`` the number of rows.
        positions: L; 1 for a tensor ``[N, d]``.
        width: d.
        dtype: name of the dtype on disk.
        layers: how many vectors of ``width / layers`` a row holds.
    """

    path: pathlib.Path
    sequences: int
    positions: int
    width: int
    dtype: str
    layers: int = 1

    @property
    def rows(self) -> int:
        """N * L."""
        return self.sequences * self.positions

    def read_into(self, rows: Tensor, mapped: Mapped, start: int) -> None:
        """Fill float32 ``[n, d]`` with the rows from ``start`` on, in one copy.

        Raises:
            DataError: naming the first row that is not finite.
        """
        filled = 0
        for piece in self._slices(mapped, start, start + len(rows)):
            _copy(piece, rows[filled : filled + len(piece)])
            filled += len(piece)
        # A sum of finite values is finite unless it overflows; a look at each value costs 30 times as much.
        if not rows.sum().isfinite():
            finite = rows.isfinite().all(dim=1)
            if not finite.all():
                raise self._not_finite(rows, start, int((~finite).nonzero()[0]))

    def _slices(self, mapped: Mapped, start: int, stop: int) -> Iterator[Any]:
        """The rows as pieces that each are one slice of the tensor."""
        if len(mapped.shape) == 2:
            yield mapped.array[start:stop]
            return
        while start < stop:
            sequence, position = divmod(start, self.positions)
            whole = (stop - start) // self.positions
            if position == 0 and whole:
                yield mapped.array[sequence : sequence + whole].reshape(-1, self.width)
                start += whole * self.positions
            else:
                end = min(self.positions, position + stop - start)
                yield mapped.array[sequence : sequence + 1, position:end].reshape(-1, self.width)
                start += end - position

    def _not_finite(self, block: Tensor, start: int, row: int) -> DataError:
        what = "NaN" if block[row].isnan().any() else "infinity"
        if self.dtype == "float64" and what == "infinity":
            what = "infinity (or a value beyond float32)"
        place = f"{self.path}: row {start + row}"
        if self.positions > 1:
            sequence, position = divmod(start + row, self.positions)
            place += f" (sequence {sequence}, position {position})"
        return DataError(
            f"the row holds {what}",
            where=place,
            allowed="finite values; rows count from 0",
            next="remove the row, or compute it again",
        )


def _copy(piece: Any, rows: Tensor) -> None:
    """What a slice of a mapped tensor gave, as float32."""
    if isinstance(piece, np.ndarray) and piece.dtype == np.float16:
        # torch converts float16 ten times as fast, but warns at arrays that cannot be written
        piece = torch.from_numpy(np.array(piece, dtype=np.float16))
    if isinstance(piece, np.ndarray):
        with np.errstate(over="ignore"):  # becomes infinity, which is reported with its row
            np.copyto(rows.numpy(), piece, casting="same_kind")
    else:
        rows.copy_(piece.detach())


def describe_file(path: pathlib.Path, mapped: Mapped, layered: bool = False) -> TensorFile:
    """Check shape and dtype of an opened file.

    Args:
        layered: a row of ``[N, L, d]`` is a token with L layers, ``L * d`` wide.

    Raises:
        DataError: on no rows, no columns, another number of dimensions, or elements that are not floats.
    """
    if mapped.dtype not in FLOATS:
        raise DataError(
            f"its elements are {mapped.dtype}, not floats", where=str(path), allowed=ALLOWED_TENSOR
        )
    if len(mapped.shape) not in (2, 3):
        raise DataError(
            f"the tensor has the shape {list(mapped.shape)}", where=str(path), allowed=ALLOWED_TENSOR
        )
    if math.prod(mapped.shape) == 0:
        raise DataError(
            f"the tensor is empty: its shape is {list(mapped.shape)}", where=str(path), allowed=ALLOWED_TENSOR
        )
    if layered and (len(mapped.shape) != 3 or mapped.shape[1] < 2):
        raise DataError(
            f"the tensor has the shape {list(mapped.shape)}, and its middle dimension should be layers",
            where=str(path),
            allowed="[N, L, d] with L of at least 2",
            next="--middle positions for one layer",
        )
    if layered:
        layers, width = mapped.shape[1:]
        return TensorFile(path, mapped.shape[0], 1, layers * width, mapped.dtype, layers)
    positions = mapped.shape[1] if len(mapped.shape) == 3 else 1
    return TensorFile(path, mapped.shape[0], positions, mapped.shape[-1], mapped.dtype)


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
    ".safetensors": _open_safetensors,
    ".npy": _open_npy,
}
