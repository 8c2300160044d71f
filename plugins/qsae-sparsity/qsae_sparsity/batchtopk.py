"""Sparsity rule ``batchtopk``: k latents per token on average. Shapes: B tokens, F latents, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import Kept, SparseCodes, SparsityRule
from qsae_core.kernels import BatchSelection, collect_rows, compress, everyone
from qsae_sparsity import BatchTopKConfig

MOST_DECAY = 0.999
WINDOW_SHARE = 10
"""The threshold is an average over about the last tenth of the batches so far, 1000 at most."""


class BatchTopK(SparsityRule):
    """Training keeps the ``k B`` largest ``latent * importance`` of B tokens (Bussmann et al., 2024).

    Meanwhile a threshold follows the smallest entry that a batch kept: ``theta <- d theta + (1 - d)
    min_active`` with ``d = min(0.999, t / (t + 10))`` after t batches, so that it arrives in short runs too.
    Evaluation keeps every ``latent * importance`` above it, and a token's code does not depend on the other
    tokens. Only positive latents are kept.
    """

    counts = "k"
    splits = True
    threshold: Tensor
    batches: Tensor

    def __init__(self, config: BatchTopKConfig, n_latents: int) -> None:
        config = config.for_latents(n_latents)
        super().__init__(config, n_latents)
        self.k = config.k
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float32))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self._selection: BatchSelection | None = None

    def begin_batch(self, batch_size: int) -> None:
        """In training, open the budget of ``k B`` entries."""
        self._selection = BatchSelection(self.k * batch_size) if self.training else None

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        """In training what may be among the batch's largest; a chunk outside of a batch is one of its own."""
        ranking_BF = latents_BF if importance_F is None else latents_BF * importance_F
        if not self.training:
            columns, _, offsets = compress(ranking_BF.contiguous(), float(self.threshold))
            return self._codes(columns, offsets, latents_BF)
        if self._selection is not None:
            found = self._selection.select(ranking_BF)
            return self._codes(found.indices, found.offsets, latents_BF)
        alone = BatchSelection(self.k * latents_BF.shape[0])
        found = alone.finish(alone.select(ranking_BF))
        self._follow(found.values)
        return self._codes(found.indices, found.offsets, latents_BF)

    def finish_batch(self, codes: SparseCodes, importance_F: Tensor | None = None) -> SparseCodes:
        """In training the ``k B`` largest of the batch; in evaluation the codes as they are."""
        if self._selection is None:
            return codes
        weights = 1.0 if importance_F is None else importance_F.index_select(0, codes.indices)
        kept = self._selection.finish(codes.with_values(codes.values * weights))
        self._selection = None
        self._follow(kept.values)
        return kept

    def kept(self) -> Kept:
        """What is above the threshold."""
        return Kept(above=float(self.threshold))

    def _follow(self, kept_N: Tensor) -> None:
        least = everyone().least(kept_N)
        if least is None:
            return
        decay = min(MOST_DECAY, float(self.batches) / (float(self.batches) + WINDOW_SHARE))
        self.threshold.mul_(decay).add_(least, alpha=1 - decay)
        self.batches += 1

    def _codes(self, columns: Tensor, offsets: Tensor, latents_BF: Tensor) -> SparseCodes:
        values = collect_rows(latents_BF.contiguous(), columns, offsets)
        return SparseCodes(columns, values, offsets, latents_BF.shape[1])
