"""Passes over a matrix of weights. Shapes: F rows, D width; R rows and C columns of magnitudes."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_kernels_cpu.arguments import address, raise_if
from qsae_kernels_cpu.library import compiled


def project_rows(grad_FD: Tensor, weight_FD: Tensor | None) -> float:
    """Take the component along the weight's rows from a gradient, in place; its sum of squares afterwards."""
    rows, width = grad_FD.shape if grad_FD.dim() == 2 else (1, grad_FD.numel())
    return float(
        compiled("project_rows")(
            address("grad", grad_FD, torch.float32, tuple(grad_FD.shape)),
            None if weight_FD is None else address("weight", weight_FD, torch.float32, (rows, width)),
            rows,
            width,
            torch.get_num_threads(),
        )
    )


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
    """One step of Adam in place; with ``unit_rows`` each row of the weight is scaled to norm 1 afterwards."""
    shape = tuple(weight.shape)
    if unit_rows and weight.dim() != 2:
        raise ValueError(f"adam: unit_rows needs a matrix, the weight is {shape}")
    rows, width = shape if weight.dim() == 2 else (1, weight.numel())
    names = ("weight", "grad", "exp_avg", "exp_avg_sq")
    tensors = zip(names, (weight, grad, exp_avg, exp_avg_sq), strict=True)
    compiled("adam")(
        *(address(name, tensor, torch.float32, shape) for name, tensor in tensors),
        rows,
        width,
        lr,
        beta1,
        beta2,
        eps,
        step,
        grad_scale,
        int(unit_rows),
        torch.get_num_threads(),
    )


def ternary_scales(magnitudes_RC: Tensor) -> Tensor:
    """``[R]``: the mean of the n largest magnitudes of each row, n maximising (their sum)^2 / n."""
    rows, width = magnitudes_RC.shape
    scales = magnitudes_RC.new_empty(rows)
    at = address("magnitudes", magnitudes_RC, torch.float32, (rows, width))
    raise_if(compiled("ternary_scales")(at, scales.data_ptr(), rows, width, torch.get_num_threads()))
    return scales
