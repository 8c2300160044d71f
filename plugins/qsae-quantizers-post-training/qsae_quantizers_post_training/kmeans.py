"""Weighted k-means in bounded memory. Shapes: N vectors, K centres, L their length, C vectors of a chunk."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2**21
"""Distances that are held at once."""
PER_CENTRE, LEAST_SAMPLE = 64, 2**15
"""Vectors that centres are learned from."""


def nearest_centres(vectors_NL: Tensor, centres_KL: Tensor) -> Tensor:
    """int64 ``[N]``: the number of the nearest centre."""
    if centres_KL.shape[1] == 1:
        ascending, order = centres_KL[:, 0].sort()
        middles = ascending[1:] / 2 + ascending[:-1] / 2
        return order[torch.bucketize(vectors_NL[:, 0].contiguous(), middles)]
    half_K = centres_KL.square().sum(1) / 2
    step = max(1, CHUNK // centres_KL.shape[0])
    parts = [
        torch.addmm(half_K, chunk_CL, centres_KL.T, alpha=-1).min(1).indices
        for chunk_CL in vectors_NL.split(step)
    ]
    return torch.cat(parts)


def kmeans(vectors_NL: Tensor, weight_N: Tensor, n_centres: int, iterations: int) -> Tensor:
    """float32 ``[K, L]``: centres of small ``sum_n weight_n |x_n - c|^2`` (Lloyd, 1982).

    Learned from a sample that is always the same, of at least 64 vectors per centre where there are as many.
    Its first K vectors are the first centres; a centre that loses all its vectors stays where it is.

    Args:
        n_centres: K, at most N.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(vectors_NL.shape[0], generator=generator).to(vectors_NL.device)
    sample = order[: max(LEAST_SAMPLE, PER_CENTRE * n_centres)]
    x, weight = vectors_NL[sample], weight_N[sample]
    centres = x[:n_centres].clone()
    for _ in range(iterations):
        near = nearest_centres(x, centres)
        total = weight.new_zeros(n_centres).index_add_(0, near, weight)
        sums = torch.zeros_like(centres).index_add_(0, near, x * weight[:, None])
        means = sums / torch.where(total > 0, total, 1)[:, None]
        centres = torch.where(total[:, None] > 0, means, centres)
    return centres
