"""One tensor on disk, memory-mapped, read as float32 rows. Shapes: N sequences, L positions, d width."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qsae_core.errors import DataError
from qsae_data_tensors.formats import ALLOWED_TENSOR, Mapped

FLOATS = ("float16", "bfloat16", "float32", "float64")


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
        self.copy_into(rows, mapped, start)
        # A sum of finite values is finite unless it overflows; a look at each value costs 30 times as much.
        if not rows.sum().isfinite():
            finite = rows.isfinite().all(dim=1)
            if not finite.all():
                raise self._not_finite(rows, start, int((~finite).nonzero()[0]))

    def copy_into(self, rows: Tensor, mapped: Mapped, start: int) -> None:
        """Fill float32 ``[n, d]`` with the rows from ``start`` on, whatever they hold."""
        filled = 0
        for piece in self._slices(mapped, start, start + len(rows)):
            _copy(piece, rows[filled : filled + len(piece)])
            filled += len(piece)

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
