"""The scales of a matrix of which only the first bit planes are read. Shapes: F rows, D columns."""

from __future__ import annotations

from torch import Tensor

from qsae_quantizers.blocks import chunks, times_scales
from qsae_quantizers.grids import Planes

DIGITS = 6
"""Significant digits of a factor: more than the scales have."""


def level_scales(grid: Planes, points_FD: Tensor, scale: Tensor, weight_FD: Tensor) -> list[float]:
    """What scales are to be multiplied by where 1, 2, ... planes of a matrix are read; 1.0 for all of them.

    The factor of least squared error over the matrix: ``<w, c> / <c, c>`` for the coarser matrix c.

    Args:
        points_FD: points of the grid.
        scale: float32 ``[F]``, ``[1]`` or ``[F, G]``.
        weight_FD: float32; what the points stand for.
    """
    n_levels = grid.n_bits_in_all
    along, squares = [0.0] * n_levels, [0.0] * n_levels
    scale = scale.expand(points_FD.shape[0]) if scale.dim() == 1 else scale
    for start, stop, _ in chunks(points_FD, 0):
        weight = weight_FD[start:stop].double()
        for level in range(1, n_levels):
            coarse = grid.coarsen(points_FD[start:stop], level)
            coarse = times_scales(coarse, scale[start:stop]).double()
            along[level - 1] += float((weight * coarse).sum())
            squares[level - 1] += float(coarse.square().sum())
    factors = [
        a / s if s > 0 and a > 0 else 2.0 ** (n_levels - level)
        for level, (a, s) in enumerate(zip(along, squares, strict=True), 1)
    ]
    return [float(f"{factor:.{DIGITS}g}") for factor in factors[:-1]] + [1.0]
