"""Rows: a matrix ``[F, D]`` as the operations read it: floats, packed codes, or masters to be quantized.

Shapes: F rows, D width, R some rows, N entries. ``encode``, ``decode`` and the losses take a ``Matrix``: a
plain tensor, or ``Rows`` (what ``QuantizedMatrix.rows`` gives). So a coder's mathematics is written once, and
packed weights are never expanded to a float matrix where a few rows serve.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from qsae_core.contracts.codes import SparseCodes
from qsae_core.kernels.fused import Weights
from qsae_core.kernels.products import entry_dots, weighted_rows
from qsae_core.kernels.screening import Kind, Screen


class Rows(abc.ABC):
    """A matrix that is read by rows; lives for one training step, or as long as the weights do not change."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._screen: Screen | None = None
        self._norms: Tensor | None = None

    @abc.abstractmethod
    def dense(self) -> Tensor:
        """``[F, D]`` floats, differentiable where the matrix is trained."""

    @property
    def trains(self) -> bool:
        """Whether a gradient to the matrix is wanted."""
        return False

    def take(self, rows_R: Tensor) -> Tensor:
        """``[R, D]``: some rows, differentiable where the matrix is trained."""
        return self.dense().index_select(0, rows_R)

    def pre_activations(self, x_CD: Tensor, bias_F: Tensor, out_CF: Tensor) -> None:
        """``x W^T + bias`` of all rows, into ``out``; without gradient."""
        torch.addmm(bias_F, x_CD, self.dense().T, out=out_CF)

    def blocks(self) -> Iterator[tuple[int, Tensor]] | None:
        """Some rows after the others as float32 ``[R, D]``, each with the number of its first row, where a
        whole matrix of floats is not to be made; else None."""
        return None

    def touched(self, codes: SparseCodes) -> tuple[Rows, SparseCodes]:
        """A matrix with at least the rows that the codes name, and the codes in its terms."""
        return self, codes

    def product(self, codes: SparseCodes, values: Tensor) -> Tensor:
        """``[B, D]``: each token's sum of values times rows; without gradient."""
        return weighted_rows(codes, values, self.dense())

    def dots(self, left_BD: Tensor, codes: SparseCodes) -> Tensor:
        """``[N]``: for each entry (b, j), the dot product of ``left[b]`` and row j; without gradient."""
        return entry_dots(left_BD, self.dense(), codes)

    def norms(self) -> Tensor:
        """``[F]``: the norm of each row, differentiable where the matrix is trained."""
        if self._norms is None:
            self._norms = self.dense().norm(dim=1)
        return self._norms

    def fusable(self) -> Weights | None:
        """The matrix as the fused operations read it; None where they cannot."""
        return None

    @property
    def row_bytes(self) -> float:
        """Bytes that are read for one row of a product."""
        return 4.0 * self.shape[1]

    def screen(self, kind: Kind) -> Screen:
        """The matrix prepared for screening, made once."""
        if self._screen is None or self._screen.kind != kind:
            with torch.no_grad():
                self._screen = Screen(kind, self._once(), self.shape[0])
        return self._screen

    def _once(self) -> Tensor | Iterator[Tensor]:
        """``[F, D]`` floats to make a screen of, or some rows after the others; not kept for it."""
        return self.dense().detach()


class DenseRows(Rows):
    """A float matrix."""

    def __init__(self, matrix_FD: Tensor) -> None:
        super().__init__((matrix_FD.shape[0], matrix_FD.shape[1]))
        self._matrix = matrix_FD

    def dense(self) -> Tensor:
        """The very tensor."""
        return self._matrix

    @property
    def trains(self) -> bool:
        """Whether the tensor requires a gradient."""
        return self._matrix.requires_grad

    def fusable(self) -> Weights | None:
        """The tensor, where it is contiguous float32."""
        plain = self._matrix.dtype == torch.float32 and self._matrix.is_contiguous()
        return self._matrix.detach() if plain else None


Matrix: TypeAlias = "Tensor | Rows"


def as_rows(matrix: Matrix) -> Rows:
    """Rows of a plain tensor; Rows stay as they are."""
    return matrix if isinstance(matrix, Rows) else DenseRows(matrix)
