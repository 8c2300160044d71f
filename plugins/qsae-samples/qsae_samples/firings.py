"""The first pass: how often and how strongly each latent fires, and which of its firings are kept.

Shapes: B tokens, C contexts, T positions, N entries of codes, F latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import Accumulator, EvaluationContext, Observation, Result, TokenBatch
from qsae_samples import SamplesConfig
from qsae_samples.kept import POSITION_BITS, Entries, Kept, hashed
from qsae_samples.magnitudes import BINS, STEPS, bin_of, strength_key

if TYPE_CHECKING:
    from qsae_samples.windows import Surroundings

SPREAD = STEPS // 4
"""Bins of magnitude that share a reservoir: a quarter of an octave."""


class Seen(NamedTuple):
    """What of a batch counts. Int64 ``[B]`` but for the codes' entries ``[N]``, all on the CPU."""

    place: Tensor
    document: Tensor
    """Of a text whose documents are not known, ``-1 - context``."""
    hash: Tensor
    row: Tensor
    """Of each entry."""
    latent: Tensor
    value: Tensor
    n_special: int
    n_skipped: int
    context: int
    """Of the first row; -1 where there is none."""

    @property
    def counted(self) -> Tensor:
        """bool ``[B]``: rows that are not left out."""
        return self.place >= 0


def seen(observation: Observation, config: SamplesConfig) -> Seen:
    """The firings of a batch; rows of the first positions are left out, and have place -1."""
    assert observation.tokens is not None  # as ``observes`` says
    assert observation.origin is not None
    tokens, origin = observation.tokens, observation.origin
    context, position = origin.context.cpu(), origin.position.cpu()
    skipped = (position - _segment_starts(tokens)[tokens.counted.cpu()]) < config.skip_first
    document = origin.document.cpu()
    document = document.where(document >= 0, -1 - context)
    place = (context << POSITION_BITS) | position
    codes = observation.codes.detach().to("cpu")
    rows = codes.rows
    fires = codes.active & (codes.values.abs() > config.threshold) & ~skipped[rows]
    return Seen(
        place.where(~skipped, place.new_tensor(-1)),
        document,
        hashed(place, config.seed),
        rows[fires],
        codes.indices[fires].to(torch.int64),
        codes.values[fires].to(torch.float32),
        int((tokens.attention & ~tokens.counted).sum()),
        int(skipped.sum()),
        int(context[0]) if len(context) else -1,
    )


def _segment_starts(tokens: TokenBatch) -> Tensor:
    """int64 ``[C, T]``: the first position of the part of the context that each position sees."""
    here = torch.arange(tokens.ids.shape[1]).expand(tokens.ids.shape)
    if tokens.segments is None:
        return torch.zeros_like(here)
    segments = tokens.segments.cpu()
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return here.where(begins, here.new_zeros(())).cummax(1).values


class Firings(Accumulator):
    """Counts, sums and the histogram of each latent, and the places of its examples."""

    def __init__(self, config: SamplesConfig, context: EvaluationContext) -> None:
        self.config, self.context = config, context
        n = self.n_latents = context.coder.n_latents
        self.count = torch.zeros(n, dtype=torch.int64)
        self.total = torch.zeros(n, dtype=torch.float64)
        self.largest = torch.zeros(n)
        self.histogram = torch.zeros(n, BINS, dtype=torch.int32)
        self.top = Kept(n, config.top)
        self.spread = Kept(n * (BINS // SPREAD), 2 * config.per_group)
        self.random = Kept(1, config.random)
        self.n_seen = self.n_special = self.n_skipped = self.n_pairs = 0
        self.n_contexts = self.context_length = 0

    def update(self, observation: Observation) -> None:
        """Take the firings of a batch into account."""
        assert observation.tokens is not None  # as ``observes`` says
        batch = seen(observation, self.config)
        counted = batch.counted
        self.n_contexts += len(observation.tokens.ids)
        self.context_length = max(self.context_length, observation.tokens.ids.shape[1])
        self.n_seen += int(counted.sum())
        self.n_special, self.n_skipped = self.n_special + batch.n_special, self.n_skipped + batch.n_skipped
        active = torch.bincount(batch.row, minlength=len(batch.place))
        self.n_pairs += int((active * (active - 1) // 2).sum())
        magnitude = batch.value.abs()
        bin_ = bin_of(magnitude)
        ones = torch.ones_like(batch.latent)
        self.count.index_add_(0, batch.latent, ones)
        self.total.index_add_(0, batch.latent, magnitude.to(torch.float64))
        self.largest.scatter_reduce_(0, batch.latent, magnitude, "amax")
        self.histogram.view(-1).index_add_(0, batch.latent * BINS + bin_, ones.to(torch.int32))
        self._keep(batch, magnitude, bin_)

    def _keep(self, batch: Seen, magnitude: Tensor, bin_: Tensor) -> None:
        document, place, hash_ = (t[batch.row] for t in (batch.document, batch.place, batch.hash))
        self.top.add(Entries(batch.latent, strength_key(magnitude, hash_), document, place, batch.value))
        reservoir = batch.latent * (BINS // SPREAD) + bin_ // SPREAD
        self.spread.add(Entries(reservoir, hash_, document, place, batch.value))
        rows = batch.counted.nonzero()[:, 0]
        hash_, document, place = (t[rows] for t in (batch.hash, batch.document, batch.place))
        self.random.add(Entries(torch.zeros_like(rows), hash_, document, place, torch.zeros(len(rows))))

    def merge(self, other: Firings) -> None:
        """Take into account what another one has seen."""
        for name in ("count", "total", "histogram"):
            getattr(self, name).add_(getattr(other, name))
        for name in ("n_seen", "n_special", "n_skipped", "n_pairs", "n_contexts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.context_length = max(self.context_length, other.context_length)
        self.largest = torch.maximum(self.largest, other.largest)
        for name in ("top", "spread", "random"):
            getattr(self, name).merge(getattr(other, name))

    def next_pass(self) -> Surroundings:
        """What is around the examples."""
        from qsae_samples.windows import Surroundings

        return Surroundings(self)

    def result(self) -> Result:
        """Nothing yet: the second pass has it."""
        return Result()
