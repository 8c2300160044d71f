"""Where the weights of a quantized matrix are on their grid. F rows, D columns."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.coders import QuantizedMatrix


def codes_of(matrix: QuantizedMatrix) -> tuple[Tensor, int] | None:
    """uint8 ``[F, D]``: the number of each weight's point, ascending, and how many points there are; None
    where the matrix is not stored as codes into one table."""
    found = matrix.quantizer.lookup(matrix.pack())
    return None if found is None else (found.codes, found.points.numel())


def saturated(matrix: QuantizedMatrix) -> Tensor | None:
    """Bool ``[F, D]``: weights at the lowest or the highest point; None where there are only two points, at
    one of which every weight is."""
    found = codes_of(matrix)
    if found is None or found[1] < 3:
        return None
    codes, n_points = found
    return (codes == 0) | (codes == n_points - 1)


def near_boundary(matrix: QuantizedMatrix, step: float, seed: int) -> Tensor | None:
    """Bool ``[F, D]``: weights that have another point when every entry of the master moves by ``step``, up
    or down at random, or by as much the other way. Scales follow as they would.
    """
    found = codes_of(matrix)
    if found is None:
        return None
    generator = torch.Generator().manual_seed(seed)
    start = matrix.master.detach().clone()
    signs = (torch.randint(0, 2, start.shape, generator=generator) * 2 - 1).to(start)
    changed = torch.zeros_like(found[0], dtype=torch.bool)
    with torch.no_grad():
        for way in (1, -1):
            matrix.master.copy_(start).add_(signs, alpha=way * step)
            moved = codes_of(matrix)
            assert moved is not None
            changed |= moved[0] != found[0]
        matrix.master.copy_(start)
    return changed


def clipped(straight: Tensor, of_quantized: Tensor) -> float | None:
    """Share of weights that get no gradient, of those in whose quantized values the loss has one; None where
    there are none."""
    reached = of_quantized != 0
    n = int(reached.sum())
    return int((straight[reached] == 0).sum()) / n if n else None


def share(which: Tensor | None) -> float | None:
    """Of true entries."""
    return None if which is None else float(which.double().mean())
