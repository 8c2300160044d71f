"""Reconstructions from nested prefixes of the dictionary. Shapes: B tokens, D width, G groups, N entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts.codes import SparseCodes
from qsae_core.kernels.decode import decode
from qsae_core.kernels.rows import Matrix


def decode_groups(codes: SparseCodes, W_dec_FD: Matrix, prefixes: Sequence[int]) -> Tensor:
    """``[B, G, D]``: for each token, the sum over the latents of each group alone, from one sparse decode.

    Args:
        prefixes: ascending, the last one F; group g holds latents ``prefixes[g - 1]`` up to ``prefixes[g]``.
    """
    groups, batch = len(prefixes), codes.batch_size
    ends = torch.tensor(prefixes, device=codes.indices.device)
    bag_N = codes.rows * groups + torch.bucketize(codes.indices.long(), ends, right=True)
    order = torch.sort(bag_N, stable=True).indices
    offsets = torch.zeros(batch * groups + 1, dtype=torch.int64, device=bag_N.device)
    torch.cumsum(torch.bincount(bag_N, minlength=batch * groups), 0, out=offsets[1:])
    bags = SparseCodes(codes.indices[order], codes.values[order], offsets, codes.n_latents)
    return decode(bags, W_dec_FD).view(batch, groups, -1)


def prefix_errors(parts_BGD: Tensor, target_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors of every prefix, and the whole reconstruction.

    Args:
        parts_BGD: what each group adds (``decode_groups``).
        target_BD: what the prefixes' sums are compared with (``x - b_dec``).

    Returns:
        ``[G]``: ``||target - sum of the first g parts||^2``, summed over D, mean over tokens; and ``[B, D]``,
        the sum of all parts, without gradient.
    """
    return _PrefixErrors.apply(parts_BGD, target_BD)  # type: ignore[no-untyped-call]


class _PrefixErrors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        errors = parts.cumsum(1)
        whole = errors[:, -1].clone()
        torch.sub(target[:, None], errors, out=errors)
        ctx.save_for_backward(errors)
        ctx.mark_non_differentiable(whole)
        return errors.square().sum(2).mean(0), whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (errors,) = ctx.saved_tensors
        scaled = errors * (gradients[0] * (2 / errors.shape[0]))[:, None]
        onwards = scaled.flip(1).cumsum(1).flip(1)  # part g is in the sums of prefixes g and later
        return -onwards, onwards[:, 0]
