"""Who flips: entries near the weakest of their token, or any. Shapes: B tokens, F latents, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import Table
from qsae_evaluation_quantization_error.pairs import Active, Shared

EDGES = (1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0)
"""An entry's strength ``|f_j| ||w_j||`` in multiples of that of the weakest active entry of its token."""
NEAR = 1.25
"""Up to so many times the weakest counts as near the threshold."""


def multiples(codes: Active, norms_F: Tensor, n_tokens: int) -> Tensor:
    """float64 ``[N]``: each entry's strength over that of its token's weakest active entry."""
    strength = codes.values.abs() * norms_F[codes.latents]
    weakest = torch.full((n_tokens,), torch.inf, dtype=torch.float64, device=strength.device)
    weakest.scatter_reduce_(0, codes.rows, strength, "amin")
    return torch.where(strength > 0, strength / weakest[codes.rows], 1.0)  # an atom of norm 0


class Margins:
    """Entries by how far above the weakest they are, and which of them the other coder does not have.

    Args:
        norms_a, norms_b: float64 ``[F]``, norms of the twin's atoms and the coder's.
    """

    def __init__(self, norms_a: Tensor, norms_b: Tensor) -> None:
        self.norms = norms_a, norms_b
        shape = (2, 2, len(EDGES))
        self.counts = torch.zeros(shape, dtype=torch.float64, device=norms_a.device)
        """[of the twin, of the coder] x [all, those that the other lacks] x bins."""
        self.log_margin = torch.zeros_like(norms_a)
        """``[F]``: sum of log2 of the multiples of a latent's entries in the twin."""

    def add(self, a: Active, b: Active, common: Shared, n_tokens: int) -> None:
        """Add a batch."""
        edges = torch.tensor(EDGES[1:], dtype=torch.float64, device=a.values.device)
        for side, (codes, kept) in enumerate(((a, common.in_b), (b, common.in_a))):
            found = multiples(codes, self.norms[side], n_tokens)
            bins = torch.bucketize(found, edges, right=True)
            for which, some in enumerate((bins, bins[~kept])):
                self.counts[side, which] += torch.bincount(some, minlength=len(EDGES))
            if side == 0:
                self.log_margin.index_add_(0, codes.latents, found.log2())

    def merge(self, other: Margins) -> None:
        """Add what another one has seen."""
        self.counts += other.counts
        self.log_margin += other.log_margin

    def near_share(self, side: int, which: int) -> float | None:
        """The share near the threshold: of all entries (0), or of those that the other coder lacks (1)."""
        counts = self.counts[side, which]
        near = sum(float(counts[i]) for i, edge in enumerate((*EDGES[1:], torch.inf)) if edge <= NEAR)
        total = float(counts.sum())
        return near / total if total else None

    def table(self) -> Table:
        """By bins: entries of the twin and which share left, entries of the coder and which share is new."""
        columns = ("times_weakest_from", "to", "twin_entries", "left_share", "coder_entries", "entered_share")
        rows: list[list[float | int | None]] = []
        for i, (start, end) in enumerate(zip(EDGES, (*EDGES[1:], None), strict=True)):
            cells: list[float | int | None] = [start, end]
            for side in range(2):
                total, flipped = (float(self.counts[side, which, i]) for which in range(2))
                cells += [int(total), flipped / total if total else None]
            rows.append(cells)
        return Table(columns, rows)
