"""The optimiser's step over a matrix, with rows that stay on the unit sphere. Shapes: F rows, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qsae_core.kernels.dispatch import operation

CHUNK_ENTRIES = 2**18
"""Entries of a chunk: its weight, gradient and moments together stay in a core's cache."""
AS_PUBLISHED: dict[str, Any] = {"weight_decay": 0.0, "amsgrad": False, "maximize": False}
"""What torch's Adam could do besides."""


@operation
def project_rows(grad_FD: Tensor, weight_FD: Tensor | None) -> float:
    """Take from each row of a gradient its component along the weight's (unit-norm) row, in place.

    Args:
        grad_FD: changed in place; of any shape where there is no weight.
        weight_FD: None: the gradient stays as it is.

    Returns:
        the sum of squares of the gradient as it then is.
    """
    total = 0.0
    for start, stop in _chunks(grad_FD):
        grad = grad_FD[start:stop]
        if weight_FD is not None:
            weight = weight_FD[start:stop]
            along = torch.linalg.vecdot(grad, weight)
            grad.addcmul_(weight, along[:, None], value=-1.0)
        total += float(torch.linalg.vector_norm(grad, dtype=torch.float32)) ** 2
    return total


@operation
def adam(
    weight: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    grad_scale: float,
    unit_rows: bool,
) -> None:
    """One step of Adam (Kingma and Ba, 2015) in place, in one pass over memory.

    Args:
        weight: ``[F, D]`` or any shape without ``unit_rows``.
        grad: multiplied by ``grad_scale`` first (clipping).
        exp_avg: first moment.
        exp_avg_sq: second moment.
        step: number of this step, from 1.
        unit_rows: scale each row of the weight to norm 1 afterwards; rows of zeros stay.
    """
    at = torch.tensor(float(step), dtype=torch.float32, device=weight.device)
    inverse_scale = None
    if grad_scale != 1.0:
        inverse_scale = torch.tensor(1 / grad_scale, dtype=torch.float32, device=weight.device)
    rates: dict[str, Any] = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps}
    for start, stop in _chunks(weight):
        w, g, m, v = ([tensor[start:stop]] for tensor in (weight, grad, exp_avg, exp_avg_sq))
        torch._fused_adam_(w, g, m, v, [], [at], **rates, **AS_PUBLISHED, grad_scale=inverse_scale)
        if unit_rows:
            _to_unit_rows(weight[start:stop])


def _to_unit_rows(weight_FD: Tensor) -> None:
    norms = torch.linalg.vector_norm(weight_FD, dim=1, keepdim=True)
    weight_FD.div_(norms.clamp_min_(torch.finfo(weight_FD.dtype).tiny))


def _chunks(tensor: Tensor) -> list[tuple[int, int]]:
    """Row ranges of a tensor, each a chunk; the whole tensor where there is no CPU's cache to stay in."""
    rows = tensor.shape[0] if tensor.dim() else 1
    if tensor.device.type != "cpu":
        return [(0, rows)]
    size = max(1, CHUNK_ENTRIES // max(1, tensor.numel() // max(rows, 1)))
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]
