"""The first pass: how often each latent fires in each half of the documents, and where its windows may be.

Shapes: B tokens, N entries of codes, F latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from qsae_samples import POSITION_BITS, Entries, Kept, SamplesConfig, Seen, hashed, seen, strength_key
from torch import Tensor

from qsae_core.contracts import Accumulator, EvaluationContext, Observation, Result
from qsae_evaluation_autointerp import AutointerpConfig

if TYPE_CHECKING:
    from qsae_evaluation_autointerp.judge import Judge
    from qsae_evaluation_autointerp.windows import Surroundings

EXPLAINS, SCORES = 0, 1
"""The halves of the documents."""
PER_PART = 4
"""Windows that are kept for each one that is drawn by rank: of so many the parts by rank are made."""
HALVES, PLACES = 1, 2
"""What is added to the seed, so that these hashes are independent of each other."""


class Text(NamedTuple):
    """Tokens that count, ``[B]``."""

    place: Tensor
    """int64: ``context << POSITION_BITS | position``."""
    token: Tensor
    """int32."""
    half: Tensor
    """uint8."""


def own_hash(latent: Tensor, place: Tensor, seed: int) -> Tensor:
    """int64 in ``[0, 2**62)``: of a place, as good as random, and another one for each latent."""
    return hashed(place ^ hashed(latent, seed), seed)


class Firings(Accumulator):
    """Counts of each latent in each half, and the places of windows that may be chosen."""

    def __init__(self, config: AutointerpConfig, context: EvaluationContext, judge: Judge) -> None:
        self.config, self.context, self.judge = config, context, judge
        n = self.n_latents = context.coder.n_latents
        self.options = SamplesConfig(skip_first=config.skip_first, seed=config.seed)
        self.width = config.before + 1 + config.after
        self.count = torch.zeros(n, dtype=torch.int64)
        self.top = Kept(n, config.top)
        self.explaining = Kept(n, config.top + PER_PART * config.ranks)
        self.scoring = Kept(n, PER_PART * config.positives)
        self.parts: list[Text] = []

    def update(self, observation: Observation) -> None:
        """Take a batch into account."""
        assert observation.tokens is not None  # as Autointerp.observes says
        batch = seen(observation, self.options)
        half = hashed(batch.document, self.config.seed + HALVES) & 1
        counted = batch.counted
        token = observation.tokens.ids[observation.tokens.counted].cpu()[counted]
        self.parts.append(Text(batch.place[counted], token.to(torch.int32), half[counted].to(torch.uint8)))
        self.count += torch.bincount(batch.latent, minlength=self.n_latents)
        self._keep(batch, half[batch.row])

    def _keep(self, batch: Seen, half: Tensor) -> None:
        place = batch.place[batch.row]
        key = own_hash(batch.latent, place, self.config.seed + PLACES)
        entries = Entries(batch.latent, key, self.stretch(place), place, batch.value)
        explaining = entries.rows(half == EXPLAINS)
        self.explaining.add(explaining)
        self.top.add(explaining._replace(key=strength_key(explaining.value.abs(), explaining.key)))
        self.scoring.add(entries.rows(half == SCORES))

    def stretch(self, place: Tensor) -> Tensor:
        """int64: which stretch of a context, as long as a window, a place is in; a latent has one window of
        each at most."""
        position = place & ((1 << POSITION_BITS) - 1)
        return place - position + position // self.width

    def text(self) -> Text:
        """All tokens, in order."""
        place, token, half = (torch.cat(tensors) for tensors in zip(*self.parts, strict=True))
        order = place.argsort(stable=True)
        return Text(place[order], token[order], half[order])

    def merge(self, other: Firings) -> None:
        """Take into account what another one has seen."""
        self.count += other.count
        self.parts += other.parts
        for name in ("top", "explaining", "scoring"):
            getattr(self, name).merge(getattr(other, name))

    def next_pass(self) -> Surroundings | None:
        """What reads the windows of the latents that are judged; None where there is none."""
        from qsae_evaluation_autointerp.choice import choose
        from qsae_evaluation_autointerp.windows import Surroundings

        chosen = choose(self)
        return Surroundings(self, chosen) if chosen.latents else None

    def result(self) -> Result:
        """Of no latent: the second pass has those that are judged."""
        from qsae_evaluation_autointerp.choice import choose
        from qsae_evaluation_autointerp.findings import found

        return found(self, choose(self), [], None)
