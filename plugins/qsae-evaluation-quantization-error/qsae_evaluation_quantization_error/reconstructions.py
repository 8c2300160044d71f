"""Squared errors of two reconstructions of the same targets. Shapes: B tokens, D width."""

from __future__ import annotations

import torch
from torch import Tensor


class Reconstructions:
    """Sums over tokens, in float64."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.tokens = 0
        self.targets = [torch.zeros((), dtype=torch.float64, device=device) for _ in range(2)]
        """Sum of x, ``[D]``, and of ||x||^2."""
        self.squared_errors = torch.zeros(2, dtype=torch.float64, device=device)

    def add(self, target: Tensor, first: Tensor, second: Tensor) -> None:
        """Add a batch: what was to be reconstructed and both reconstructions, ``[B, D]`` or ``[B, L, D]``."""
        self.tokens += len(target)
        x = target.double().flatten(1)
        self.targets[0] = self.targets[0] + x.sum(0)
        self.targets[1] = self.targets[1] + x.square().sum()
        for side, x_hat in enumerate((first, second)):
            self.squared_errors[side] += (x - x_hat.double().flatten(1)).square().sum()

    def merge(self, other: Reconstructions) -> None:
        """Add what another one has seen."""
        self.tokens += other.tokens
        self.targets = [one + more for one, more in zip(self.targets, other.targets, strict=True)]
        self.squared_errors += other.squared_errors

    def variance(self) -> float:
        """``sum ||x - mean(x)||^2`` over the tokens."""
        if not self.tokens:
            return 0.0
        return float(self.targets[1] - self.targets[0].square().sum() / self.tokens)

    def fvu_gap(self) -> float | None:
        """FVU of the second, less that of the first; None where x does not vary."""
        variance = self.variance()
        gap = float(self.squared_errors[1] - self.squared_errors[0])
        return gap / variance if variance > 0 else None
