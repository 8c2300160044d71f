"""The tokens at which each latent is strongest. Shapes: F latents, K of them kept, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_evaluation_quantization_error.pairs import Active

NOWHERE = -1


class TopPositions:
    """For each latent the ``top`` tokens with the largest activations; of equal ones the earlier.

    Args:
        top: K.
    """

    def __init__(self, n_latents: int, top: int, device: str | torch.device = "cpu") -> None:
        self.top = top
        shape = (n_latents, top)
        self.values = torch.full(shape, -torch.inf, dtype=torch.float64, device=device)
        self.places = torch.full(shape, NOWHERE, dtype=torch.int64, device=device)
        """The token's number within the held-out data; ``NOWHERE`` where the latent fired less often."""

    def add(self, codes: Active, first: int) -> None:
        """Take a batch whose tokens are numbered from ``first`` on."""
        enough = codes.values >= self.values[codes.latents, -1]
        self._take(codes.latents[enough], codes.values[enough], codes.rows[enough] + first)

    def merge(self, other: TopPositions) -> None:
        """Take what another one has kept."""
        kept = other.places != NOWHERE
        self._take(kept.nonzero()[:, 0], other.values[kept], other.places[kept])

    def _take(self, latents: Tensor, values: Tensor, places: Tensor) -> None:
        if not len(latents):
            return
        touched, local = latents.unique(return_inverse=True)
        old = self.places[touched] != NOWHERE
        local = torch.cat([local, old.nonzero()[:, 0]])
        values = torch.cat([values, self.values[touched][old]])
        places = torch.cat([places, self.places[touched][old]])
        # by latent, then from the largest value, then from the first place
        order = places.argsort(stable=True)
        order = order[values[order].argsort(descending=True, stable=True)]
        order = order[local[order].argsort(stable=True)]
        local, values, places = local[order], values[order], places[order]
        counts = torch.bincount(local, minlength=len(touched))
        rank = torch.arange(len(local), device=local.device) - (counts.cumsum(0) - counts)[local]
        kept = rank < self.top
        cells = touched[local[kept]], rank[kept]
        self.values[cells], self.places[cells] = values[kept], places[kept]

    def renumbered(self, numbers_F: Tensor) -> TopPositions:
        """The same of latents with other numbers: latent j becomes ``numbers_F[j]``."""
        other = TopPositions(len(self.places), self.top, self.places.device)
        other.values[numbers_F], other.places[numbers_F] = self.values, self.places
        return other

    def largest(self) -> Tensor:
        """float64 ``[F]``: the largest activation; NaN of a latent that never fired."""
        return torch.where(self.places[:, 0] == NOWHERE, torch.nan, self.values[:, 0])


def overlap(a: TopPositions, b: TopPositions) -> Tensor:
    """float64 ``[F]``: the share of a's top tokens that are among b's; NaN where a never fired."""
    found = torch.zeros(len(a.places), dtype=torch.float64, device=a.places.device)
    for column in a.places.T:
        found += ((b.places == column[:, None]) & (column != NOWHERE)[:, None]).any(1)
    there = (a.places != NOWHERE).sum(1)
    return torch.where(there > 0, found / there, torch.nan)
