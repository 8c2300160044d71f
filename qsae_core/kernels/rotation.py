"""The rotation of a normalised space, and back. Shapes: N rows, D = S * T width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qsae_core.kernels.dispatch import operation


@operation
def rotate(rows_ND: Tensor, signs_D: Tensor, left_SS: Tensor, right_TT: Tensor) -> Tensor:
    """``[N, D]``: each row times its signs, as a matrix ``X [S, T]``, becomes ``left X right``.

    A row's result depends on the row alone, not on the rows around it.

    Args:
        signs_D: int8, -1 or 1.
    """
    signed = rows_ND * signs_D.to(rows_ND.dtype)
    blocks = signed.view(-1, left_SS.shape[0], right_TT.shape[0])
    return (left_SS @ (blocks @ right_TT)).view(rows_ND.shape)


@operation
def unrotate(rows_ND: Tensor, signs_D: Tensor, left_SS: Tensor, right_TT: Tensor) -> Tensor:
    """``[N, D]``: ``(left X) right^T`` times the signs: what ``rotate`` made the rows of, as ``left`` is
    symmetric and both are orthogonal."""
    blocks = rows_ND.view(-1, left_SS.shape[0], right_TT.shape[0])
    return ((left_SS @ blocks) @ right_TT.T).view(rows_ND.shape) * signs_D.to(rows_ND.dtype)


def turned(rows_ND: Tensor, signs_D: Tensor, left_SS: Tensor, right_TT: Tensor, *, back: bool) -> Tensor:
    """``rotate``, or ``unrotate`` where ``back``; differentiable in the rows."""
    rotation = (signs_D, left_SS, right_TT)
    if torch.is_grad_enabled() and rows_ND.requires_grad:
        rows: Tensor = _Turn.apply(rows_ND, rotation, back)  # type: ignore[no-untyped-call]
        return rows
    return (unrotate if back else rotate)(rows_ND.contiguous(), *rotation)


class _Turn(torch.autograd.Function):
    """The gradient of an orthogonal map is its inverse of the gradient."""

    @staticmethod
    def forward(ctx: Any, rows_ND: Tensor, rotation: tuple[Tensor, Tensor, Tensor], back: bool) -> Tensor:
        ctx.rotation, ctx.back = rotation, back
        return (unrotate if back else rotate)(rows_ND.contiguous(), *rotation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()
        return (rotate if ctx.back else unrotate)(gradient, *ctx.rotation), None, None
