"""Which atoms are alike: within a dictionary, and between two. Shapes: F latents, D width, K neighbours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsae_core.errors import ArtifactError
from qsae_core.measuring import nearest, rows_at_once

N_NEIGHBOURS = 8
"""Latents that are named as nearest to one."""


class Neighbours(NamedTuple):
    """The nearest other atoms of each atom, the most similar first."""

    which: NDArray[np.int32]
    """``[F, K]``; -1 where there are no more."""
    cosines: NDArray[np.float32]
    """``[F, K]``, with their signs."""


class Counterparts(NamedTuple):
    """The most similar atoms of another dictionary."""

    which: NDArray[np.int32]
    """``[F]``."""
    cosines: NDArray[np.float32]
    """``[F]``."""
    back: NDArray[np.int32]
    """``[F']``: of each of the other's atoms, the most similar one here."""
    back_cosines: NDArray[np.float32]
    """``[F']``."""


@torch.no_grad()
def neighbours(rows_FD: Tensor) -> Neighbours:
    """The nearest of each of a dictionary's unit rows, itself left out.

    Products are taken in blocks: no F x F entries are ever held.
    """
    n = len(rows_FD)
    k = min(N_NEIGHBOURS, n - 1)
    which = torch.full((n, N_NEIGHBOURS), -1, dtype=torch.int32)
    cosines = torch.zeros(n, N_NEIGHBOURS)
    at_once = rows_at_once(n)
    for start in range(0, n, at_once):
        block = rows_FD[start : start + at_once] @ rows_FD.T
        own = torch.arange(len(block))
        block[own, start + own] = -torch.inf
        found = block.topk(k, dim=1)
        which[start : start + len(block), :k] = found.indices.to(torch.int32)
        cosines[start : start + len(block), :k] = found.values.clamp(-1, 1)
    return Neighbours(which.numpy(), cosines.numpy())


def counterparts(rows_FD: Tensor, others_GD: Tensor, where: str) -> Counterparts:
    """The most similar row of another dictionary, each way.

    Raises:
        ArtifactError: if the two are of different widths.
    """
    if rows_FD.shape[1] != others_GD.shape[1]:
        raise ArtifactError(
            f"its atoms have {others_GD.shape[1]} entries, and those of the report's coder "
            f"{rows_FD.shape[1]}: they are of other vectors",
            where=where,
            allowed="a coder of the same model's vectors",
        )
    of_a, of_b = nearest(rows_FD, others_GD)
    return Counterparts(
        of_a.which.to(torch.int32).numpy(),
        of_a.cosines.float().numpy(),
        of_b.which.to(torch.int32).numpy(),
        of_b.cosines.float().numpy(),
    )
