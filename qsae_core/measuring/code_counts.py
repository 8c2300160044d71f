"""What a code length is made of, counted over a stream.

Shapes: B tokens, F latents, L levels, N active entries, G groups of scored tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.metric import Observation

FIT = 0
"""Row of the counts that probabilities are fitted on; the groups that are scored come behind it."""


class CodeCounts:
    """On how many tokens each latent is active, and how often at each level.

    Blocks of ``block`` tokens take turns: the first is fitted, the second scored, and so on. Scored blocks
    take turns in their groups. Blocks are those of the whole stream, whoever has seen them, where
    observations say which tokens they are (``Observation.first``).
    """

    tokens: Tensor
    """int64 ``[1 + G]``."""
    active: Tensor | None = None
    """int64 ``[1 + G, F]``: tokens on which each latent is active."""
    levels: Tensor | None = None
    """int32 ``[1 + G, F, L]``: how often each latent takes each level; None where values are float32."""
    quantized: bool | None = None

    def __init__(self, block: int, groups: int) -> None:
        self.block, self.groups, self._position = block, groups, 0
        self.tokens = torch.zeros(1 + groups, dtype=torch.int64)

    def rows_of(self, token_B: Tensor) -> Tensor:
        """int64 ``[B]``: the row of the counts that each token of the stream belongs to."""
        number = token_B // self.block
        return torch.where(number % 2 == 0, FIT, 1 + number // 2 % self.groups)

    def update(self, observation: Observation) -> Tensor:
        """Take one batch into account; gives ``rows_of`` its tokens.

        Raises:
            ValueError: where the number of latents has changed, or whether values are quantized.
        """
        codes, levels = observation.codes, observation.levels
        active = self._same_kind(codes.n_latents, levels is not None)
        first = self._position if observation.first is None else observation.first
        row_B = self.rows_of(first + torch.arange(codes.batch_size))
        self._position = first + codes.batch_size
        self.tokens += torch.bincount(row_B, minlength=1 + self.groups)
        fires = codes.active
        key_N = row_B[codes.rows[fires].cpu()] * codes.n_latents + codes.indices[fires].long().cpu()
        active += torch.bincount(key_N, minlength=active.numel()).view_as(active)
        if levels is not None:
            self._count_levels(key_N, levels[fires].long().cpu(), codes)
        return row_B

    def _same_kind(self, n_latents: int, quantized: bool) -> Tensor:
        if self.active is None:
            self.active = torch.zeros(1 + self.groups, n_latents, dtype=torch.int64)
            self.quantized = quantized
        if self.active.shape[1] != n_latents:
            raise ValueError(f"codes of {n_latents} latents after codes of {self.active.shape[1]}")
        if self.quantized != quantized:
            raise ValueError("values are quantized in some batches and not in others")
        return self.active

    def _count_levels(self, key_N: Tensor, level_N: Tensor, codes: SparseCodes) -> None:
        needed = 1 << int(level_N.max()).bit_length() if len(level_N) else 1
        if self.levels is None:
            self.levels = torch.zeros(1 + self.groups, codes.n_latents, needed, dtype=torch.int32)
        self.levels = _widened(self.levels, needed)
        place_N = key_N * self.levels.shape[2] + level_N
        self.levels.view(-1).index_add_(0, place_N, torch.ones_like(place_N, dtype=torch.int32))

    def merge(self, other: CodeCounts) -> None:
        """Add the counts of another one.

        Raises:
            ValueError: where its codes have other latents, or only one of the two has quantized values.
        """
        if other.active is None:
            return
        active = self._same_kind(other.active.shape[1], bool(other.quantized))
        active += other.active
        self.tokens += other.tokens
        if other.levels is None:
            return
        if self.levels is None:
            self.levels = torch.zeros_like(other.levels)
        width = max(self.levels.shape[2], other.levels.shape[2])
        self.levels = _widened(self.levels, width) + _widened(other.levels, width)


def _widened(levels: Tensor, width: int) -> Tensor:
    """With room for levels below ``width``."""
    missing = width - levels.shape[2]
    return torch.nn.functional.pad(levels, (0, missing)).contiguous() if missing > 0 else levels
