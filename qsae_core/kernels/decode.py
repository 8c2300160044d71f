"""Sparse decode: codes -> sum of atoms. Shapes: B tokens, F latents, D width, N entries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts.codes import SparseCodes
from qsae_core.kernels.products import transposed_product
from qsae_core.kernels.rows import Matrix, Rows, as_rows


def decode(codes: SparseCodes, W_dec_FD: Matrix) -> Tensor:
    """``[B, D]``: each token's sum of its latents times their atoms; differentiable in both.

    The gradient of a value is the dot product of its atom with the output's gradient; the gradient of
    ``W_dec`` is a transposed sparse product. Neither touches latents that the codes do not name, and of a
    matrix whose quantizer works row by row only these are quantized. Of several partners each gets the sum of
    its own latents, and ``partners().total`` of that is the sum of all.
    """
    rows, codes = as_rows(W_dec_FD).touched(codes)
    if not torch.is_grad_enabled():
        return rows.product(codes, codes.values)
    weight = rows.dense() if rows.trains else None
    return _Decode.apply(codes.values, weight, rows, codes)  # type: ignore[no-untyped-call]


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor | None, rows: Rows, codes: SparseCodes) -> Tensor:
        ctx.rows, ctx.codes = (
            rows,
            codes.with_values(values.new_empty(0)),
        )  # the support, not a copy of values
        ctx.save_for_backward(values, weight)
        return rows.product(codes, values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, _ = ctx.saved_tensors
        grad_BD = gradients[0].contiguous()
        to_values, to_weight, _, _ = ctx.needs_input_grad
        return (
            ctx.rows.dots(grad_BD, ctx.codes) if to_values else None,
            transposed_product(ctx.codes, values, grad_BD) if to_weight else None,
            None,
            None,
        )
