"""Which latents of another coder are the twin's, where numbers do not say so. Shapes: F latents, D width."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import SparseCoder
from qsae_core.measuring import column, directions, match, random_directions

EXACT_UP_TO = 4096
"""Latents up to which no other pairs have a larger sum of cosines; above, pairs that are each other's nearest
come first."""
SEED = 0
"""Of random rows."""


class Partners(NamedTuple):
    """The latents of two coders of one size, one to one."""

    latents: Tensor
    """int64 ``[F]``: the twin's latent j is beside this one of the other coder."""
    numbers: Tensor
    """int64 ``[F]``: the other way round, by which the other coder's latents get the twin's numbers."""
    cosines: Tensor
    """float64 ``[F]``, of the twin's latents with their partners, on the CPU; NaN where an atom is zero."""
    how: str
    """``exact`` or ``mutual``, as ``match`` says."""


@torch.no_grad()
def partners(twin: SparseCoder, other: SparseCoder) -> Partners:
    """Matched so that the cosines of atoms have the largest sum. Latents that cannot be matched, since an
    atom of zeros has no direction, are beside each other in the order of their numbers."""
    n, found = twin.n_latents, match(directions(twin), directions(other), exact_up_to=EXACT_UP_TO)
    latents = torch.empty(n, dtype=torch.int64)
    latents[_others(found.rows, n)] = _others(found.columns, n)
    latents[found.rows] = found.columns
    numbers = torch.empty_like(latents)
    numbers[latents] = torch.arange(n)
    cosines = column(n, found.rows, found.cosines)
    return Partners(latents.to(twin.device), numbers.to(twin.device), cosines, found.how)


def _others(some: Tensor, n: int) -> Tensor:
    left = torch.ones(n, dtype=torch.bool)
    left[some] = False
    return left.nonzero()[:, 0]


@torch.no_grad()
def cosines_by_chance(twin: SparseCoder) -> Tensor:
    """float64 ``[F]``: of the twin's latents with as many random rows, which are matched alike."""
    atoms_FD = directions(twin)
    found = match(atoms_FD, random_directions(atoms_FD, SEED), exact_up_to=EXACT_UP_TO)
    return column(len(atoms_FD), found.rows, found.cosines)
