"""What is counted of a stream of codes. Shapes: B tokens, F latents, N entries, S stretches of latents."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from qsae_core.contracts import Observation
from qsae_core.measuring import Clusters


class Firing:
    """Counts and sums of each latent, and how many latents of each stretch fire on a token.

    A latent fires where its value is not zero; an activation is the size of a value. Memory: a few numbers a
    latent, and for each stretch one number for each L0 that occurs.

    Args:
        n_latents: F.
        ends: of the stretches; the last one is F.
    """

    def __init__(self, n_latents: int, ends: Sequence[int]) -> None:
        self.n_tokens = 0
        self.n_left_out: int | None = None
        """Positions that the language model read and that do not count; None: no contexts were seen."""
        self.ends = torch.tensor(ends, dtype=torch.int64)
        self.fired_F = torch.zeros(n_latents, dtype=torch.int64)
        self.sum_F = torch.zeros(n_latents, dtype=torch.float64)
        self.largest_F = torch.zeros(n_latents, dtype=torch.float64)
        self.norms_F: Tensor | None = None
        self.tokens_with: list[Tensor] = [torch.zeros(1, dtype=torch.int64) for _ in range(1 + len(ends))]
        """Of all latents, then of each stretch, int64 ``[largest L0 + 1]``: on how many tokens so many of
        them fire."""
        self.clusters = Clusters()
        """Sums of ``l0`` and ``l1``."""

    def add(self, observation: Observation) -> None:
        """Take a batch into account."""
        codes = observation.codes
        active_N = codes.active
        rows_N, indices_N = codes.rows[active_N].cpu(), codes.indices[active_N].long().cpu()
        sizes_N = codes.values[active_N].detach().to("cpu", torch.float64).abs()
        if self.norms_F is None:
            norms = observation.atom_norms.detach().to("cpu", torch.float64)
            self.norms_F = norms.reshape(codes.n_latents, -1).norm(dim=1)
        self.n_tokens += codes.batch_size
        if observation.tokens is not None:
            left_out = int((observation.tokens.attention & ~observation.tokens.counted).sum())
            self.n_left_out = (self.n_left_out or 0) + left_out
        self.fired_F += torch.bincount(indices_N, minlength=len(self.fired_F))
        self.sum_F.index_add_(0, indices_N, sizes_N)
        self.largest_F.scatter_reduce_(0, indices_N, sizes_N, "amax")
        l0_BS = self._l0(rows_N, indices_N, codes.batch_size)
        for i, l0_B in enumerate([l0_BS.sum(1), *l0_BS.unbind(1)]):
            self.tokens_with[i] = added(self.tokens_with[i], torch.bincount(l0_B))
        l1_B = torch.zeros(codes.batch_size, dtype=torch.float64)
        l1_B.index_add_(0, rows_N, sizes_N * self.norms_F[indices_N])
        self.clusters.add(_texts(observation), {"l0": l0_BS.sum(1), "l1": l1_B})

    def _l0(self, rows_N: Tensor, indices_N: Tensor, n_tokens: int) -> Tensor:
        """int64 ``[B, S]``: how many latents of each stretch fire."""
        stretch_N = torch.bucketize(indices_N, self.ends, right=True)
        n = len(self.ends)
        return torch.bincount(rows_N * n + stretch_N, minlength=n_tokens * n).reshape(n_tokens, n)

    def merge(self, other: Firing) -> None:
        """Take what another one has seen into account."""
        self.n_tokens += other.n_tokens
        if other.n_left_out is not None:
            self.n_left_out = (self.n_left_out or 0) + other.n_left_out
        self.fired_F += other.fired_F
        self.sum_F += other.sum_F
        self.largest_F = torch.maximum(self.largest_F, other.largest_F)
        self.norms_F = other.norms_F if self.norms_F is None else self.norms_F
        self.tokens_with = [
            added(mine, its) for mine, its in zip(self.tokens_with, other.tokens_with, strict=True)
        ]
        self.clusters.merge(other.clusters)

    @property
    def ranges(self) -> list[slice]:
        """The latents of each stretch."""
        return [slice(start, end) for start, end in itertools.pairwise([0, *self.ends.tolist()])]

    @property
    def density_F(self) -> Tensor:
        """float64 ``[F]``: share of tokens on which each fires; NaN without tokens."""
        return self.fired_F.to(torch.float64) / self.n_tokens

    @property
    def mean_active_F(self) -> Tensor:
        """float64 ``[F]``: mean activation over tokens on which it fires; NaN where there are none."""
        return self.sum_F / self.fired_F


def _texts(observation: Observation) -> Tensor:
    """int64 ``[B, 2]``: document and context of each token; the one where the other is not known, and where
    neither is, each token is a text."""
    origin, size = observation.origin, observation.codes.batch_size
    if origin is None:
        each = torch.arange(size) + (observation.first or 0)
        return torch.stack([each, each], dim=1)
    document, context = origin.document.cpu(), origin.context.cpu()
    return torch.stack([torch.where(document < 0, context, document), context], dim=1)


def added(first: Tensor, second: Tensor) -> Tensor:
    """The sum of two histograms that begin at 0."""
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    total = longer.clone()
    total[: len(shorter)] += shorter
    return total
