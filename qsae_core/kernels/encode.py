"""Encode and select in chunks of rows. Shapes: B tokens, C rows of a chunk, F latents, D width, N entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qsae_core.codes import SparseCodes, concatenate
from qsae_core.kernels.products import gather_dot, rows_per_chunk, sparse_product, transposed_product
from qsae_core.parts import Activation

Select = Callable[[Tensor], SparseCodes]
"""Latents of a chunk ``[C, F]`` -> which of them stay (a sparsity rule's ``select``)."""


def encode(
    x_BD: Tensor, W_enc_FD: Tensor, bias_F: Tensor, activation: Activation, select: Select
) -> SparseCodes:
    """Sparse codes ``activation(x W_enc^T + bias)`` of what ``select`` keeps.

    Differentiable in x, W_enc and bias. The pre-activations of a chunk of rows live in one reused buffer;
    only those of selected entries are kept. Gradients flow through the selected entries alone. Under bf16
    autocast the dense product selects in bf16, and the kept entries are then computed again in float32.
    """
    support, pre_acts = _select_support(x_BD, W_enc_FD, bias_F, activation, select)
    entries = _EntryPreActs.apply(x_BD, W_enc_FD, bias_F, pre_acts, support)  # type: ignore[no-untyped-call]
    return support.with_values(activation(entries, support.indices))


@torch.no_grad()
def _select_support(
    x_BD: Tensor, W_enc_FD: Tensor, bias_F: Tensor, activation: Activation, select: Select
) -> tuple[SparseCodes, Tensor]:
    """The entries that stay (codes with empty values) and their pre-activations ``[N]``."""
    n_latents, chunk = W_enc_FD.shape[0], rows_per_chunk(W_enc_FD.shape[0])
    low = _screen_dtype(x_BD)
    weight = W_enc_FD if low is None else W_enc_FD.to(low)
    buffer = x_BD.new_empty(min(chunk, x_BD.shape[0]), n_latents, dtype=weight.dtype)
    supports, pre_acts = [], []
    for start in range(0, max(x_BD.shape[0], 1), chunk):
        rows_CD = x_BD[start : start + chunk]
        pre_CF = torch.addmm(
            bias_F.to(weight.dtype), rows_CD.to(weight.dtype), weight.T, out=buffer[: rows_CD.shape[0]]
        ).to(x_BD.dtype)
        codes = select(activation(pre_CF))
        supports.append(codes)
        if low is None:
            pre_acts.append(pre_CF[codes.rows, codes.indices.long()])
    support = concatenate(supports)
    support = support.with_values(x_BD.new_empty(0))
    if low is None:
        return support, torch.cat(pre_acts)
    return support, gather_dot(x_BD, W_enc_FD, support) + bias_F[support.indices.long()]


def _screen_dtype(x: Tensor) -> torch.dtype | None:
    """The autocast dtype of x's device, where autocast is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


class _EntryPreActs(torch.autograd.Function):
    """``[N]`` pre-activations at the support's entries, already computed; this attaches their gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W_enc: Tensor, bias: Tensor, pre_acts: Tensor, support: SparseCodes
    ) -> Tensor:
        ctx.support = support
        ctx.save_for_backward(x, W_enc)
        return pre_acts

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, W_enc = ctx.saved_tensors
        (grad_N,) = gradients
        support: SparseCodes = ctx.support
        to_x, to_weight, to_bias, _, _ = ctx.needs_input_grad
        bias_gradient = None
        if to_bias:
            bias_gradient = grad_N.new_zeros(support.n_latents).index_add_(0, support.indices.long(), grad_N)
        return (
            sparse_product(support, grad_N, W_enc) if to_x else None,
            transposed_product(support, grad_N, x) if to_weight else None,
            bias_gradient,
            None,
            None,
        )
