"""Latents that are there twice. Shapes: F latents, P pairs, E width of a decoder row, of all layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import SparseCoder
from qsae_evaluation_splitting.pair_counts import Together

ROWS_AT_ONCE = 4096
"""Pairs of decoder rows that are in memory at once."""


class Duplicates(NamedTuple):
    """Pairs, those that most often fire together first; i < j."""

    i: Tensor
    j: Tensor
    jaccard: Tensor
    cosine: Tensor

    @property
    def n(self) -> int:
        """How many."""
        return len(self.i)


def duplicates(together: Together, coder: SparseCoder, jaccard: float, cosine: float) -> Duplicates:
    """Pairs with ``n_ij / (n_i + n_j - n_ij) > jaccard`` and a cosine of decoder rows ``> cosine``."""
    either = together.fired[together.i] + together.fired[together.j] - together.counts
    index = together.counts / either.double()
    often = (index > jaccard).nonzero().flatten()
    i, j, index = together.i[often], together.j[often], index[often]
    similar = cosines(coder, i, j)
    same = (similar > cosine).nonzero().flatten()
    same = same[index[same].argsort(descending=True, stable=True)]
    return Duplicates(i[same], j[same], index[same], similar[same])


def cosines(coder: SparseCoder, i: Tensor, j: Tensor) -> Tensor:
    """float64: of the decoder rows of pairs, over all layers; NaN where one is zero."""
    found = torch.zeros(len(i), dtype=torch.float64)
    if not len(i):
        return found
    atoms_FE = coder.atoms().detach().cpu().flatten(1)
    for start in range(0, len(i), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        a, b = atoms_FE[i[some]].double(), atoms_FE[j[some]].double()
        found[some] = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return found
