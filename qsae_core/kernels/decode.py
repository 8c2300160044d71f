"""Sparse decode: codes -> sum of atoms. Shapes: B tokens, F latents, D width, N entries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qsae_core.codes import SparseCodes
from qsae_core.kernels.products import gather_dot, sparse_product, transposed_product


def decode(codes: SparseCodes, W_dec_FD: Tensor) -> Tensor:
    """``[B, D]``: each token's sum of its latents times their atoms; differentiable in both.

    The gradient of a value is the dot product of its atom with the output's gradient; the gradient of
    ``W_dec`` is a transposed sparse product. Neither touches latents that the codes do not name.
    """
    return _Decode.apply(codes.values, W_dec_FD, codes)  # type: ignore[no-untyped-call]


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, codes: SparseCodes) -> Tensor:
        ctx.codes = codes.with_values(values.new_empty(0))  # keep the support, not a second copy of values
        ctx.save_for_backward(values, W_dec)
        return sparse_product(codes, values.to(W_dec.dtype), W_dec)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        values, W_dec = ctx.saved_tensors
        (grad_BD,) = gradients
        grad_BD = grad_BD.contiguous()
        to_values, to_weight, _ = ctx.needs_input_grad
        return (
            gather_dot(grad_BD, W_dec, ctx.codes) if to_values else None,
            transposed_product(ctx.codes, values, grad_BD) if to_weight else None,
            None,
        )
