"""Sums over a stream that keep their digits. Shapes: B tokens, D width."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDING = 1e-28
"""Share of sum ||x||^2 up to which a sum of squares about the mean is rounding: about (1e-14)^2."""


class Spread:
    """Sum of squares of vectors about their mean, over a stream of batches.

    Batches are merged by their means and their sums of squares about them (Chan, Golub and LeVeque, 1983), so
    that a mean far from zero costs no digits, as it would in ``sum x^2 - (sum x)^2 / n``.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | float = 0.0
        self._about_mean = 0.0
        self._about_zero = 0.0

    def add(self, x_BD: Tensor) -> None:
        """Take float64 ``[B, D]`` into account."""
        if x_BD.shape[0] == 0:
            return
        batch = Spread()
        batch.count, batch._mean = x_BD.shape[0], x_BD.mean(0)
        batch._about_mean = float((x_BD - batch._mean).square().sum())
        batch._about_zero = float(x_BD.square().sum())
        self.merge(batch)

    def merge(self, other: Spread) -> None:
        """Take what another one has seen into account."""
        if other.count == 0:
            return
        shift = torch.as_tensor(other._mean - self._mean)
        self.count += other.count
        share = other.count / self.count
        self._about_mean += other._about_mean
        self._about_mean += float(shift.square().sum()) * (self.count - other.count) * share
        self._about_zero += other._about_zero
        self._mean = self._mean + shift * share

    @property
    def about_mean(self) -> float:
        """sum ||x - mean(x)||^2; exactly 0 where what is left of it is rounding."""
        return self._about_mean if self._about_mean > ROUNDING * self._about_zero else 0.0

    @property
    def about_zero(self) -> float:
        """sum ||x||^2."""
        return self._about_zero


class MeanOfRatios:
    """Mean over tokens of a ratio, over those tokens whose denominator is not zero."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = 0.0

    def add(self, numerator_B: Tensor, denominator_B: Tensor) -> None:
        """Take float64 ``[B]`` by ``[B]`` into account."""
        defined = denominator_B != 0
        self._count += int(defined.sum())
        self._sum += float((numerator_B[defined] / denominator_B[defined]).sum())

    def merge(self, other: MeanOfRatios) -> None:
        """Take what another one has seen into account."""
        self._count += other._count
        self._sum += other._sum

    @property
    def value(self) -> float | None:
        """The mean; None where no token has a ratio."""
        return ratio(self._sum, self._count)


def ratio(numerator: float, denominator: float) -> float | None:
    """The quotient; None where it is not defined or not finite."""
    if denominator == 0 or not math.isfinite(denominator):
        return None
    quotient = numerator / denominator
    return quotient if math.isfinite(quotient) else None


def float64(tensor: Tensor) -> Tensor:
    """A detached float64 copy."""
    return tensor.detach().to(torch.float64)
