"""Straight-through gradients beside differences of the quantized loss. F rows, D columns of a matrix."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import Batch
from qsae_evaluation_gradients.trainable import Trainable


class Slopes(NamedTuple):
    """Slopes of the loss along the same random directions u, one number for each; float64."""

    measured: Tensor
    """``(L(Q(w + h u)) - L(Q(w - h u))) / 2h``."""
    straight: Tensor
    """``<g, u>``, g the gradient that reaches the master."""
    of_flips: Tensor | None
    """``<G, Q(w + h u) - Q(w - h u)> / 2h``, G the gradient of the quantized matrix; None where the master is
    not the matrix itself."""


def at_quantized(trained: Trainable, name: str, batch: Batch) -> Tensor | None:
    """``[F, D]``: G, the gradient of the loss in the entries of the quantized matrix; None where the master
    is not the matrix itself."""
    matrix = trained.coder.matrices()[name]
    if not matrix.is_plain:
        return None
    master = matrix.master.detach().clone()
    was_quantizing = matrix.quantizing
    with torch.no_grad():
        matrix.master.copy_(matrix.quantizer.fake_quantize(matrix.master))
    matrix.quantizing = False
    gradient = trained.gradients(batch)[f"{name}.weight"]
    matrix.quantizing = was_quantizing
    with torch.no_grad():
        matrix.master.copy_(master)
    return gradient


def slopes(
    trained: Trainable,
    name: str,
    batch: Batch,
    straight: Tensor,
    of_quantized: Tensor | None,
    n_directions: int,
    perturbation: float,
) -> Slopes:
    """Slopes along Gaussian directions, the same ones whatever the rounding is.

    Args:
        straight: the gradient that reaches the master.
        of_quantized: ``at_quantized``.
        perturbation: h as a share of the root mean square of the master's entries.
    """
    generator = torch.Generator().manual_seed(trained.seed)
    matrix = trained.coder.matrices()[name]
    weight = matrix.master
    start = weight.detach().clone()
    h = perturbation * float(start.double().square().mean().sqrt())
    measured, along, of_flips = [], [], []
    with torch.no_grad():
        for _ in range(n_directions):
            u = torch.randn(start.shape, generator=generator).to(start)
            ends, rounded = [], []
            for sign in (1, -1):
                weight.copy_(start).add_(u, alpha=sign * h)
                ends.append(trained.loss(batch))
                if of_quantized is not None:
                    rounded.append(matrix().clone())
            measured.append((ends[0] - ends[1]) / (2 * h))
            along.append(_dot(straight, u))
            if of_quantized is not None:
                of_flips.append(_dot(of_quantized, rounded[0] - rounded[1]) / (2 * h))
        weight.copy_(start)
    found = [torch.tensor(values, dtype=torch.float64) for values in (measured, along, of_flips)]
    return Slopes(found[0], found[1], None if of_quantized is None else found[2])


def mismatch(measured: Tensor, predicted: Tensor) -> float | None:
    """``sqrt(sum (measured - predicted)^2 / sum measured^2)``: 0 where they agree, 1 for a prediction of 0;
    None where nothing was measured."""
    whole = float(measured.square().sum())
    return math.sqrt(float((measured - predicted).square().sum()) / whole) if whole > 0 else None


def cosine(a: Tensor, b: Tensor) -> float | None:
    """``<a, b> / (||a|| ||b||)``; None where one of the two is zero."""
    norms = float(a.double().norm()) * float(b.double().norm())
    return _dot(a, b) / norms if norms > 0 else None


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())
