"""Learned sparsity of a matrix (RigL: Evci et al., 2020). Shapes: F rows, D columns."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

DROP_SHARE = 0.3
"""Of the active weights of a row that are exchanged at the first re-drawing."""
ENDS_AFTER = 0.75
"""Share of training after which the mask stays as it is."""


class LearnedMask(nn.Module):
    """Which weights of each row may differ from zero: ``round(density D)`` of them, at least one.

    The matrix begins with each row's largest weights. A re-drawing drops the smallest active ones and admits
    as many where the gradient is largest; a row without a gradient stays as it is. Every row keeps its
    number of weights, so that no atom is emptied for another's sake.
    """

    training_only = True
    kept: Tensor
    step: Tensor
    """Optimiser steps so far."""

    def __init__(self, shape: tuple[int, int], density: float) -> None:
        super().__init__()
        self.density, self.per_row = density, max(1, round(density * shape[1]))
        self.register_buffer("kept", torch.ones(shape, dtype=torch.bool))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def begin(self, weight_FD: Tensor) -> None:
        """Keep the largest weights of each row; the others become zero, in place."""
        largest = weight_FD.abs().topk(self.per_row, dim=1).indices
        self.kept.zero_().scatter_(1, largest, True)
        weight_FD.mul_(self.kept)

    @torch.no_grad()
    def redraw(self, weight_FD: Tensor, gradient_FD: Tensor, share: float) -> Tensor:
        """Exchange a share of the active weights of each row; new ones begin at zero.

        Args:
            weight_FD: changed in place.
            gradient_FD: of every weight, masked ones too.

        Returns:
            bool ``[F, D]``: weights that are new, and those that were dropped.
        """
        n = min(int(share * self.per_row), weight_FD.shape[1] - self.per_row)
        new = torch.zeros_like(self.kept)
        size = weight_FD.abs().masked_fill_(~self.kept, torch.inf)
        dropped = size.topk(n, dim=1, largest=False).indices
        pull = gradient_FD.abs().masked_fill_(self.kept, -1.0)  # what is dropped now cannot return at once
        grown = pull.topk(n, dim=1).indices
        learns = (gradient_FD != 0).any(1, keepdim=True)
        new.scatter_(1, grown, True).logical_and_(learns)
        lost = torch.zeros_like(new).scatter_(1, dropped, True).logical_and_(learns)
        self.kept.logical_and_(~lost).logical_or_(new)
        weight_FD.mul_(self.kept)
        return new | lost

    def share_at(self, step: int, steps: int) -> float:
        """``0.15 (1 + cos(pi t / T))`` with T the step after which the mask stays: from 0.3 to 0."""
        return DROP_SHARE / 2 * (1 + math.cos(math.pi * step / (ENDS_AFTER * steps)))
