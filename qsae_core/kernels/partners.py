"""What has to be known of a whole dictionary where several processes have a part of its latents each.

``kernels.processes()`` answers for the tokens of a batch, ``kernels.partners()`` for the latents of a
dictionary. Partners see the same tokens. With N of them, process r has latents ``r F / N`` up to
``(r + 1) F / N``: their encoder rows, decoder rows, biases and counters, and of every code the entries of
these. What is about all latents (means, ``b_dec``, ``W_skip``, thresholds of a whole batch) all have alike.

Each computes the loss of the whole, for what hangs on other latents comes to it as a sum, and takes the
gradient of its own part. So the gradient of a latent's row is there where the row is, and that of what all
have alike is a sum over partners (``share``). All partners ask the same, in the same order.

Shapes: B tokens, F latents of a partner, K entries per token, N partners.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Partners:
    """A process that has the whole dictionary to itself: every answer is its own."""

    rank: int = 0
    world: int = 1

    def part(self, n: int) -> slice:
        """Which of ``n`` rows, one for each latent of the dictionary, this process has."""
        return slice(self.rank * n // self.world, (self.rank + 1) * n // self.world)

    def sum(self, part: Tensor) -> Tensor:
        """The elementwise sum of the partners' tensors, without gradient; it may be made in place."""
        return part

    def largest(self, part: Tensor) -> Tensor:
        """Their elementwise maximum, without gradient; it may be made in place."""
        return part

    def total(self, part: Tensor) -> Tensor:
        """The sum of the partners' tensors, whose gradient is that of the process's own part."""
        return part

    def share(self, whole: Tensor) -> Tensor:
        """What stands in a partner's computation for a tensor that all have alike, outside of what is summed
        over latents: the tensor, with its N-th part of the gradient."""
        return whole

    def join(self, rows: Tensor) -> Tensor:
        """``[N F, ...]``: a row for each latent of the dictionary, in their order; without gradient."""
        return rows

    def each(self, rows: Tensor) -> list[Tensor]:
        """The tensors of all partners, on the device of this one's, which may have different numbers of rows;
        without gradient."""
        return [rows]

    def among_largest(self, scores_BK: Tensor, k: int) -> Tensor:
        """Bool ``[B, K]``: which of a token's scores are among the k largest that all partners have for it.

        There are k at least. Of equal ones those of lower partners are taken, and the first of one partner's.
        """
        return torch.ones_like(scores_BK, dtype=torch.bool)
