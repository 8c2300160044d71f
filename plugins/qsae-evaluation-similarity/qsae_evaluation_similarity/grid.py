"""How much of its grid a quantized decoder uses. Shapes: F latents, D width, P points of the grid."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.coders import MatrixCoder
from qsae_core.contracts import SparseCoder
from qsae_core.errors import ConfigError
from qsae_core.measuring import ROWS_AT_ONCE


class GridUse(NamedTuple):
    """Of a decoder that is stored as codes into a table of points."""

    points: Tensor
    """float32 ``[P]``, before scales."""
    shares: Tensor
    """float64 ``[P]``: of all weights, those at each point."""
    of_rows: Tensor
    """int64 ``[F]``: how many different points each row has."""

    def used(self) -> float:
        """Share of the points at which there is a weight."""
        return float((self.shares > 0).double().mean())

    def entropy(self) -> float:
        """Bits a weight: of the points' shares, ``-sum p log2 p``."""
        p = self.shares[self.shares > 0]
        return abs(float((p * p.log2()).sum()))


@torch.no_grad()
def grid_use(coder: SparseCoder) -> GridUse | None:
    """None where the decoder is no one matrix of codes into a table: float, vectors of a codebook, levels."""
    if not isinstance(coder, MatrixCoder):
        return None
    try:
        found = coder.codes_and_scales()
    except ConfigError:
        return None
    n_points = len(found.points)
    counts, of_rows = torch.zeros(n_points, dtype=torch.int64), []
    for codes in found.codes.split(ROWS_AT_ONCE):
        index = codes.to("cpu", torch.int64)
        of_row = torch.zeros(len(index), n_points, dtype=torch.int64).scatter_add_(
            1, index, torch.ones_like(index)
        )
        counts += of_row.sum(0)
        of_rows.append((of_row > 0).sum(1))
    return GridUse(found.points.cpu(), counts.double() / counts.sum(), torch.cat(of_rows))
