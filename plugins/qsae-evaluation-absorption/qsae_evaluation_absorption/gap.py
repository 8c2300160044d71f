"""The evaluation ``absorption-gap``. Shapes: N tokens, D width, F latents, G true features, P parents."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from qsae_core.contracts import (
    Accumulator,
    DataSource,
    Evaluation,
    EvaluationContext,
    Observation,
    Result,
    SparseCodes,
    Table,
)
from qsae_evaluation_absorption import AbsorptionGapConfig
from qsae_evaluation_absorption.probes import Bools, Floats, Ints
from qsae_evaluation_absorption.reading import atoms, compressed, several_layers

AT_ONCE = 1024
"""Latents whose cosines with all parents are one matrix."""


@runtime_checkable
class KnownHierarchy(Protocol):
    """A data source that knows the features of its vectors, and which of them implies which."""

    def dictionary(self) -> Tensor:
        """``[G, D]``: the true features."""

    def parents(self) -> Tensor:
        """int64 ``[G]``: the feature that each implies, -1 for none."""

    def held_out_features(self, n_tokens: int) -> SparseCodes:
        """Their activations on the first held-out tokens."""


def source_of(data: DataSource) -> KnownHierarchy | None:
    """The source behind what an evaluation is given, where it knows a hierarchy."""
    inner: Any = data
    while not isinstance(inner, KnownHierarchy) and isinstance(getattr(inner, "source", None), DataSource):
        inner = inner.source
    return inner if isinstance(inner, KnownHierarchy) else None


class Counts(NamedTuple):
    """int64 ``[P]`` each: tokens with the parent, without and with a child, and those where it fires."""

    alone: Ints
    alone_fired: Ints
    beside: Ints
    beside_fired: Ints


class AbsorptionGap(Evaluation):
    """How much less often a parent's latent fires where one of its children says the same."""

    def unavailable(self, context: EvaluationContext) -> str | None:
        """The reason, where no hierarchy is known."""
        if (reason := several_layers(context)) is not None:
            return reason
        source = source_of(context.data)
        if source is None:
            return "the data source does not know which features its vectors are made of"
        if not context.coder.is_autoencoder:
            return "features are known of what the coder reads, and a transcoder's atoms are of its target"
        if int(source.parents().max()) < 0:
            return "no feature of the data implies another one"
        return None

    def start(self, context: EvaluationContext) -> Firings:
        """Nothing seen yet."""
        return Firings(cast(AbsorptionGapConfig, self.config), context)


class Firings(Accumulator):
    """Counts of tokens for each parent, for its latent and for a random one in its place."""

    def __init__(self, config: AbsorptionGapConfig, context: EvaluationContext) -> None:
        self.config, self.n_tokens = config, config.tokens
        self.n_latents = context.coder.n_latents
        source = source_of(context.data)
        assert source is not None  # as ``unavailable`` says
        self._parent_of = source.parents().numpy()
        self._true = compressed(source.held_out_features(min(config.tokens, context.n_tokens)))
        self.parents = np.unique(self._parent_of[self._parent_of >= 0])
        wanted = source.dictionary().numpy()[self.parents]
        self.latents, self.cosines = best_latents(atoms(context), wanted)
        generator = np.random.default_rng(config.seed)
        self.random = generator.integers(0, self.n_latents, len(self.parents))
        self._seen = 0
        self._counts = [_none(len(self.parents)) for _ in range(2)]

    def update(self, observation: Observation) -> None:
        """Count a batch."""
        first = self._seen if observation.first is None else observation.first
        self._seen = first + len(observation.target)
        true = self._true[first : self._seen]
        fired = compressed(observation.codes)[: true.shape[0]]
        for number, latents in enumerate((self.latents, self.random)):
            new = counted(true, fired[:, latents], self.parents, self._parent_of)
            self._counts[number] = _sum(self._counts[number], new)

    def merge(self, other: Firings) -> None:
        """Add what another one has counted."""
        self._counts = [_sum(own, its) for own, its in zip(self._counts, other._counts, strict=True)]
        self._seen = max(self._seen, other._seen)

    def result(self) -> Result:
        """The gap of each parent that was found and is frequent enough, and their mean."""
        counts, by_chance = self._counts
        frequent = np.minimum(counts.alone, counts.beside) >= self.config.min_tokens
        found = self.cosines >= self.config.min_cosine
        measured = found & frequent
        values: dict[str, float | None] = {
            "absorption_gap": _mean(gaps(counts)[measured]),
            "fires_without_child": _mean((counts.alone_fired / np.maximum(counts.alone, 1))[measured]),
            "fires_with_child": _mean((counts.beside_fired / np.maximum(counts.beside, 1))[measured]),
            "parents_found": float(found.mean()),
            "parents_measured": float(measured.sum()),
        }
        chance = {"absorption_gap": _mean(gaps(by_chance)[frequent])}
        spread = statistics.stdev(gaps(counts)[measured].tolist()) if measured.sum() > 1 else None
        error = None if spread is None else spread / float(measured.sum()) ** 0.5
        column = torch.full((self.n_latents,), torch.nan)
        column[torch.from_numpy(self.latents[measured])] = torch.from_numpy(gaps(counts)[measured]).float()
        tables = {"parents": self._table(counts, measured)}
        return Result(values, chance, {}, {"absorption_gap": error}, {"absorption_gap": column}, tables)

    def _table(self, counts: Counts, measured: Bools) -> Table:
        columns = (
            "parent",
            "latent",
            "cosine",
            "tokens_without_child",
            "fires_without_child",
            "tokens_with_child",
            "fires_with_child",
            "absorption_gap",
        )
        rows: list[list[str | int | float | None]] = [
            [
                int(self.parents[i]),
                int(self.latents[i]),
                float(self.cosines[i]),
                int(counts.alone[i]),
                _share(counts.alone_fired[i], counts.alone[i]),
                int(counts.beside[i]),
                _share(counts.beside_fired[i], counts.beside[i]),
                float(gaps(counts)[i]) if measured[i] else None,
            ]
            for i in range(len(self.parents))
        ]
        return Table(columns, rows)


def best_latents(atoms_FD: Floats, wanted_PD: Floats) -> tuple[Ints, Floats]:
    """For each true feature the latent whose decoder row has the largest cosine with it, and that cosine."""
    wanted = wanted_PD / np.linalg.norm(wanted_PD, axis=1, keepdims=True)
    best = np.full(len(wanted), -np.inf)
    which = np.zeros(len(wanted), dtype=np.int64)
    for start in range(0, len(atoms_FD), AT_ONCE):
        rows = atoms_FD[start : start + AT_ONCE].astype(np.float64)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0) @ wanted.T
        place = cosines.argmax(0)
        here = cosines[place, np.arange(len(wanted))]
        better = here > best
        best[better], which[better] = here[better], place[better] + start
    return which, best


def counted(true_NG: Any, fired_NP: Any, parents: Ints, parent_of_G: Ints) -> Counts:
    """How often each parent is there, without and with a child, and how often its latent fires then.

    Args:
        true_NG: sparse array, not 0 where a feature is active.
        fired_NP: sparse array, not 0 where the parent's latent fires.
        parents: numbers of the features that have children.
        parent_of_G: the parent of each feature, -1 for none.
    """
    children = (parent_of_G >= 0).nonzero()[0]
    column = np.searchsorted(parents, parent_of_G[children])
    shape = (len(parent_of_G), len(parents))
    child_GP = csr_array((np.ones(len(children), dtype=np.int64), (children, column)), shape=shape)
    active, fires = (true_NG != 0).astype(np.int64), (fired_NP != 0).astype(np.int64)
    present = active[:, parents]
    beside = present.multiply(active @ child_GP > 0)
    there, fired = present.sum(0), present.multiply(fires).sum(0)
    with_child, fired_with_child = beside.sum(0), beside.multiply(fires).sum(0)
    return Counts(there - with_child, fired - fired_with_child, with_child, fired_with_child)


def gaps(counts: Counts) -> Floats:
    """P(fires | parent, no child) - P(fires | parent, child); NaN where a parent has no such token."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return counts.alone_fired / counts.alone - counts.beside_fired / counts.beside


def _none(n_parents: int) -> Counts:
    return Counts(*np.zeros((4, n_parents), dtype=np.int64))


def _sum(one: Counts, other: Counts) -> Counts:
    return Counts(*(a + b for a, b in zip(one, other, strict=True)))


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _share(count: int, total: int) -> float | None:
    return float(count / total) if total else None
