"""Selection over a whole batch, chunk by chunk. Shapes: C rows of a chunk, F latents, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts.codes import SparseCodes
from qsae_core.kernels.processes import everyone, nth_largest, processes
from qsae_core.kernels.top_k import GROUP, compress


class BatchSelection:
    """The n largest of all ``score`` entries of a batch that are above zero, seen in chunks of rows.

    What is kept of a chunk is above a floor that rises as chunks come: the n-th largest entry so far. So at
    most a few times n entries are held, and ``[B, F]`` never is. Where several processes have a part of the
    batch or of the latents each, it is the batch of all of them that is ranked.

    Args:
        n: entries of the whole batch, or of the tokens that a process has.
    """

    def __init__(self, n: int) -> None:
        self.n, self.floor = n * processes().world, 0.0
        self._scores: list[Tensor] = []
        self._held = 0

    def select(self, scores_CF: Tensor) -> SparseCodes:
        """Entries of a chunk that may be among the n largest; their values are the scores."""
        floor = max(self.floor, _nth_group_maximum(scores_CF, self.n))
        ends = torch.tensor([floor, -torch.inf], dtype=torch.float32)
        below = torch.nextafter(*ends).item() if floor > 0 else 0.0
        columns, values, offsets = compress(scores_CF.contiguous(), below)
        self._scores.append(values)
        self._held += values.numel()
        if self._held >= 2 * max(self.n, 1):
            self._scores = [torch.topk(torch.cat(self._scores), self.n, sorted=False).values]
            self._held, self.floor = self.n, float(self._scores[0].min())
        return SparseCodes(columns, values, offsets, scores_CF.shape[1])

    def finish(self, codes: SparseCodes) -> SparseCodes:
        """The n largest of what ``select`` kept of all chunks (fewer where fewer are above zero)."""
        place = self._place(codes.values)
        if place is None:
            return codes
        offsets = torch.zeros_like(codes.offsets)
        torch.cumsum(torch.bincount(codes.rows[place], minlength=codes.batch_size), 0, out=offsets[1:])
        return SparseCodes(codes.indices[place], codes.values[place], offsets, codes.n_latents)

    def _place(self, values_N: Tensor) -> Tensor | None:
        """Which of these are among the n largest, ascending; None: all."""
        together = everyone()
        if together.world == 1:
            if values_N.numel() <= self.n:
                return None
            return torch.topk(values_N, self.n, sorted=False).indices.sort().values
        if int(together.sum(torch.tensor(values_N.numel(), device=values_N.device))) <= self.n:
            return None
        threshold, equal = nth_largest(values_N, self.n)
        kept = values_N > threshold
        kept[(values_N == threshold).nonzero().squeeze(1)[:equal]] = True
        return kept.nonzero().squeeze(1)


def _nth_group_maximum(scores_CF: Tensor, n: int) -> float:
    """A floor under the n-th largest entry: n groups have a maximum of at least so much."""
    groups = scores_CF.shape[1] // GROUP
    if scores_CF.shape[0] * groups <= n or scores_CF.shape[1] % GROUP:
        return 0.0
    maxima = scores_CF.view(scores_CF.shape[0], GROUP, groups).amax(1).flatten()
    return float(torch.topk(maxima, n, sorted=False).values.min())
