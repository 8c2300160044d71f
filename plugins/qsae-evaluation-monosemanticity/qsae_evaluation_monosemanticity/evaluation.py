"""The evaluation ``monosemanticity``. Shapes: F latents, V tokens."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from qsae_core.contracts import (
    Accumulator,
    Evaluation,
    EvaluationContext,
    LanguageModel,
    Observation,
    Result,
)
from qsae_evaluation_monosemanticity import MonosemanticityConfig
from qsae_evaluation_monosemanticity.pair_counts import PairCounts
from qsae_evaluation_monosemanticity.scores import Scores, most_frequent, scores, top_tokens


class Monosemanticity(Evaluation):
    """How far the token alone says whether a latent fires: lexical selectivity, not meaning.

    For a latent that fires at n positions, ``min_fired`` or more, with counts c_v of the tokens there and K
    of them not 0: ``H_mm = -sum_v c_v/n log2 c_v/n + (K - 1) / (2 n ln 2)``; ``H_null``, its mean over n
    positions drawn from the same text, none twice; score ``1 - H_mm / H_null``.

    ``monosemanticity``: mean score; ``monosemanticity_weighted``: weighted by n; ``entropy``: mean H_mm in
    bits, by chance mean H_null; ``n_scored``: latents with a score; ``counted_fraction``: share of latents
    whose tokens were counted, 1 unless ``max_pairs`` was reached; ``n_tokens``.
    """

    observes = frozenset({"tokens"})

    def start(self, context: EvaluationContext) -> TokensOfLatents:
        """No firing counted."""
        return TokensOfLatents(cast(MonosemanticityConfig, self.config), context)


class TokensOfLatents(Accumulator):
    """How often each latent fired on each token, and how often each token occurred."""

    def __init__(self, config: MonosemanticityConfig, context: EvaluationContext) -> None:
        self.config = config
        self.model = cast(LanguageModel, context.data.language_model())  # as ``observes`` says
        self.pairs = PairCounts(context.coder.n_latents, config.max_pairs)
        self.unigram_V = torch.zeros(0, dtype=torch.int64)

    def update(self, observation: Observation) -> None:
        """Count a batch."""
        assert observation.tokens is not None  # as Monosemanticity.observes says
        tokens_B = observation.tokens.ids[observation.tokens.counted].cpu()
        codes = observation.codes
        active_N = codes.active
        self.pairs.add(codes.indices[active_N].long().cpu(), tokens_B[codes.rows[active_N].cpu()])
        self.unigram_V = _added(self.unigram_V, torch.bincount(tokens_B))

    def merge(self, other: TokensOfLatents) -> None:
        """Add the counts of another one."""
        self.pairs.merge(other.pairs)
        self.unigram_V = _added(self.unigram_V, other.unigram_V)

    def result(self) -> Result:
        """The values named by the evaluation; a column for each number of a latent; ``top_tokens``."""
        pairs, counted_F = self.pairs.pairs(), self.pairs.counted_F
        found = scores(pairs, counted_F, self.unigram_V, self.config.min_fired)
        top = most_frequent(pairs, found.fired)
        means, errors, chance = _means(found)
        n_tokens = float(self.unigram_V.sum())
        counted = float(counted_F.double().mean())
        sizes = self.config.latents_shown, self.config.tokens_shown
        return Result(
            {**means, "counted_fraction": counted, "n_tokens": n_tokens},
            chance=chance,
            uncertainty=errors,
            per_latent={**found._asdict(), "top_token": top.token, "top_token_share": top.share},
            tables={"top_tokens": top_tokens(pairs, found, self.unigram_V, sizes, self.model)},
        )


Numbers = dict[str, float | None]


def _means(found: Scores) -> tuple[Numbers, Numbers, Numbers]:
    """Means over latents with a score, their standard errors, and what they are by chance."""
    scored = ~found.monosemanticity.isnan()
    n = int(scored.sum())
    values: Numbers = dict.fromkeys(["monosemanticity", "monosemanticity_weighted", "entropy"])
    errors: Numbers = dict.fromkeys(["monosemanticity", "entropy"])
    chance: Numbers = {**values}
    if n:
        score, fired = found.monosemanticity[scored], found.fired[scored]
        values["monosemanticity"] = float(score.mean())
        values["monosemanticity_weighted"] = float((score * fired).sum() / fired.sum())
        values["entropy"] = float(found.entropy[scored].mean())
        chance = {**dict.fromkeys(values, 0.0), "entropy": float(found.entropy_null[scored].mean())}
    if n > 1:
        for name in errors:
            errors[name] = float(getattr(found, name)[scored].std()) / math.sqrt(n)
    return {**values, "n_scored": float(n)}, errors, chance


def _added(first: Tensor, second: Tensor) -> Tensor:
    """The sum of two histograms that begin at 0."""
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    total = longer.clone()
    total[: len(shorter)] += shorter
    return total
