"""The evaluation ``token-property-absorption``. Shapes: B tokens of a batch, N tokens kept, D width."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from scipy.sparse import vstack

from qsae_core import QsaeError
from qsae_core.contracts import (
    Accumulator,
    Evaluation,
    EvaluationContext,
    LanguageModel,
    Observation,
    Result,
)
from qsae_evaluation_absorption import TokenPropertyAbsorptionConfig, concepts
from qsae_evaluation_absorption.findings import Names, result_of
from qsae_evaluation_absorption.probes import Floats, Ints
from qsae_evaluation_absorption.reading import atoms, compressed, several_layers
from qsae_evaluation_absorption.steps import Concept, Examples, measured

MIN_CONCEPTS = 5
TRAIN_SHARE = 0.8
NAMES = Names(
    "token_property_absorption_fraction",
    "std_dev_token_property_absorption_fraction",
    "token_property_full_absorption",
    "std_dev_token_property_full_absorption",
    "token_property_num_split_features",
    "std_dev_token_property_num_split_features",
    "concept",
)


class TokenPropertyAbsorption(Evaluation):
    """SAEBench's steps on tokens of held-out text and what their own text says of them. Higher is worse."""

    observes = frozenset({"tokens"})

    def unavailable(self, context: EvaluationContext) -> str | None:
        """The reason, where the coder is of several layers or tokens have no known text."""
        if (reason := several_layers(context)) is not None:
            return reason
        try:
            cast(LanguageModel, context.data.language_model()).decode([0])
        except QsaeError as error:
            return error.what
        return None

    def start(self, context: EvaluationContext) -> KeptTokens:
        """No token yet."""
        return KeptTokens(cast(TokenPropertyAbsorptionConfig, self.config), context)


class Kept(NamedTuple):
    """Tokens of the stream."""

    places: Ints
    """Their numbers in the held-out stream."""
    ids: Ints
    targets: Floats
    """float32 ``[N, D]``"""
    codes: Any
    """Sparse array ``[N, F]``."""

    def rows(self, which: Ints) -> Kept:
        """Some of them."""
        return Kept(self.places[which], self.ids[which], self.targets[which], self.codes[which])


class KeptTokens(Accumulator):
    """The first ``per_token`` places of each token of the vocabulary, with vectors and codes.

    What it keeps is at most ``tokens`` vectors and their codes.
    """

    def __init__(self, config: TokenPropertyAbsorptionConfig, context: EvaluationContext) -> None:
        self.config, self.context = config, context
        self.n_tokens = config.tokens
        self._parts: list[Kept] = []
        self._seen = 0
        self._count: dict[int, int] = {}

    def update(self, observation: Observation) -> None:
        """Keep the batch's tokens that have not been kept often enough."""
        assert observation.token_ids is not None  # as ``observes`` says
        ids = observation.token_ids.cpu().numpy().astype(np.int64)
        first = self._seen if observation.first is None else observation.first
        self._seen = first + len(ids)
        rows = np.array([row for row, token in enumerate(ids) if self._wants(int(token))], dtype=np.int64)
        if len(rows):
            targets = observation.target.detach()[rows].float().cpu().numpy()
            codes = compressed(observation.codes)[rows]
            self._parts.append(Kept(first + rows, ids[rows], targets, codes))

    def _wants(self, token: int) -> bool:
        self._count[token] = self._count.get(token, 0) + 1
        return self._count[token] <= self.config.per_token

    def merge(self, other: KeptTokens) -> None:
        """Keep the first places among both."""
        self._parts += other._parts
        for token, count in other._count.items():
            self._count[token] = self._count.get(token, 0) + count
        self._seen = max(self._seen, other._seen)
        if self._parts:
            self._parts = [self._first(_joined(self._parts))]

    def _first(self, kept: Kept) -> Kept:
        """In the order of the stream, the first ``per_token`` of each token."""
        kept = kept.rows(np.argsort(kept.places))
        count: dict[int, int] = {}
        rows = []
        for row, token in enumerate(kept.ids.tolist()):
            count[token] = count.get(token, 0) + 1
            if count[token] <= self.config.per_token:
                rows.append(row)
        return kept.rows(np.array(rows, dtype=np.int64))

    def result(self) -> Result:
        """Train the probes on places of some tokens of the vocabulary, and measure on those of all others."""
        model = cast(LanguageModel, self.context.data.language_model())
        n_latents = self.context.coder.n_latents
        if not self._parts:
            return result_of([Concept(name) for name in concepts.NAMES], NAMES, MIN_CONCEPTS, n_latents, str)
        kept = self._first(_joined(self._parts))
        types, of_type = np.unique(kept.ids, return_inverse=True)
        texts = [model.decode([int(token)]) for token in types]
        labels = np.array([concepts.properties(text) for text in texts], dtype=bool)[of_type]
        chosen = np.random.default_rng(self.config.seed).permutation(len(types)) < int(
            TRAIN_SHARE * len(types)
        )
        examples = Examples(kept.targets.astype(np.float64), kept.codes, labels, chosen[of_type])
        found = measured(examples, atoms(self.context), concepts.NAMES, self.config.seed)
        return result_of(found, NAMES, MIN_CONCEPTS, n_latents, lambda row: texts[of_type[row]])


def _joined(parts: list[Kept]) -> Kept:
    if len(parts) == 1:
        return parts[0]
    places, ids, targets = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("places", "ids", "targets")
    )
    return Kept(places, ids, targets, vstack([part.codes for part in parts], format="csr"))
