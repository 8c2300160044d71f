"""Rows that are known again in another float type and at another place, by some of their values.

Shapes: N rows, D width, C values that stand for a row, M rows that are looked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from qsae_data_tensors.chunks import Chunks

VALUES = 16
"""Of a row, at even distances."""
LEAST_VALUES = 8
"""With which a row is told from all others wherever it stands."""
TOLERANCE = 2.0**-8
"""Of a value: bfloat16 is off by half as much. What is smaller than ``SMALLEST`` counts as zero: float16 has
nothing else for it."""
SMALLEST = 2.0**-14
DIGITS = 5
MOST_BYTES = 2**30
"""Of float32 rows in which others are looked for."""
ROWS_AT_ONCE = 4096
ENOUGH = 2
"""Rows that have to be found: one alone, such as that of a first token, is in all data of a model."""


def values_of(row_D: Tensor) -> list[float]:
    """What stands for a row, as JSON."""
    return [float(f"{value:.{DIGITS}g}") for value in _chosen(row_D[None])[0].tolist()]


def same_values(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether rows are the same but for their float type."""
    if len(one) != len(other) or not one:
        return False
    return bool(
        _close(torch.tensor(one, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)).all()
    )


def stand_elsewhere(chunks: Chunks, files: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows that stand for other files are among the first ``MOST_BYTES`` of these, in any order.

    Rows that are there more than once, as those of first tokens, say nothing.

    Args:
        files: as ``HeldOutRows.record`` has them.
    """
    found = [values for file in files for values in file.get("values", []) if len(values) >= LEAST_VALUES]
    wanted_MC = torch.tensor(sorted(set(map(tuple, found))), dtype=torch.float64)
    if wanted_MC.dim() < 2 or wanted_MC.shape[1] != min(VALUES, chunks.width):
        return False
    times_M = torch.zeros(len(wanted_MC), dtype=torch.int64)
    n_rows = min(chunks.rows, MOST_BYTES // (4 * chunks.width))
    for start in range(0, n_rows, ROWS_AT_ONCE):
        rows_ND = torch.empty(min(ROWS_AT_ONCE, n_rows - start), chunks.width)
        chunks.copy_into(rows_ND, start)
        times_M += _close(_chosen(rows_ND)[:, None], wanted_MC).all(2).sum(0)
    return int((times_M == 1).sum()) >= ENOUGH


def _chosen(rows_ND: Tensor) -> Tensor:
    """float64 ``[N, C]``."""
    width = rows_ND.shape[1]
    columns = torch.linspace(0, width - 1, min(VALUES, width), dtype=torch.float64).long()
    return rows_ND[:, columns].double()


def _close(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).abs() <= TOLERANCE * torch.maximum(one.abs(), other.abs()).clamp_min(SMALLEST)
