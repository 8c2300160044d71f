"""The scales of a matrix of which only the first bit planes are read. Shapes: F rows, D columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from qsae_quantizers.blocks import chunks, times_scales
from qsae_quantizers.grids import Planes

DIGITS = 6
"""Significant digits of a factor: more than the scales have."""


def factors(weight_FD: Tensor, coarse: Iterable[Tensor]) -> list[float]:
    """What coarser matrices c are to be multiplied by: ``<w, c> / <c, c>``; and 1.0 for the finest."""
    return [_factor(weight_FD, c_FD) for c_FD in coarse] + [1.0]


def level_scales(grid: Planes, points_FD: Tensor, scale: Tensor, weight_FD: Tensor) -> list[float]:
    """What scales are to be multiplied by where 1, 2, ... planes of a matrix are read; 1.0 for all of them.

    The factor of least squared error over the matrix, about ``2^(n - level)``.

    Args:
        points_FD: points of the grid.
        scale: float32 ``[F]``, ``[1]`` or ``[F, G]``.
        weight_FD: float32; what the points stand for.
    """
    n_levels = grid.n_bits_in_all
    scale = scale.expand(points_FD.shape[0]) if scale.dim() == 1 else scale

    def coarse() -> Iterator[Tensor]:
        for level in range(1, n_levels):
            yield times_scales(grid.coarsen(points_FD, level), scale)

    found = factors(weight_FD, coarse())
    return [f or 2.0 ** (n_levels - level) for level, f in enumerate(found, 1)]


def _factor(weight_FD: Tensor, coarse_FD: Tensor) -> float:
    """0.0 where no factor brings them closer."""
    along = squares = 0.0
    for start, stop, _ in chunks(weight_FD, 0):
        coarse = coarse_FD[start:stop].double()
        along += float((weight_FD[start:stop].double() * coarse).sum())
        squares += float(coarse.square().sum())
    return float(f"{along / squares:.{DIGITS}g}") if squares > 0 and along > 0 else 0.0
