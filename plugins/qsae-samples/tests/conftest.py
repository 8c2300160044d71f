"""Made-up text and codes, shown in batches of any number of contexts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from qsae_samples import SamplesConfig
from qsae_samples.evaluation import SamplesEvaluation, SamplesResult
from torch import Tensor

from qsae_core.contracts import EvaluationContext, Observation, Origin, SparseCodes, TokenBatch


class Letters:
    """A language model whose token i is the i-th letter of the alphabet; 0 is the special token ^."""

    has_logits = False

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        return "".join("^abcdefghijklmnopqrstuvwxyz"[int(i)] for i in ids)


class Made:
    """Contexts with a special token at the beginning, two documents each, and dense latents of every token.

    Args:
        latents_CTF: what fires where; nothing at special tokens.
        ids_CT: the tokens; the first of each context is 0.
    """

    def __init__(self, latents_CTF: Tensor, ids_CT: Tensor | None = None, *, documents: Any = None) -> None:
        n, length = latents_CTF.shape[:2]
        if ids_CT is None:
            ids_CT = (torch.arange(n * length).view(n, length) % 26) + 1
            ids_CT[:, 0] = 0
        counted = ids_CT != 0
        if documents is None:
            documents = 2 * torch.arange(n)[:, None] + (torch.arange(length) > length // 2)
        self.tokens = TokenBatch(
            ids_CT, counted, torch.ones_like(counted), torch.where(counted, documents, -1)
        )
        self.latents = latents_CTF

    def observations(self, at_once: int) -> Iterator[Observation]:
        for start in range(0, len(self.tokens.ids), at_once):
            tokens = self.tokens.rows(slice(start, start + at_once))
            context, position = tokens.counted.nonzero(as_tuple=True)
            assert tokens.documents is not None
            origin = Origin(tokens.documents[tokens.counted], context + start, position)
            dense = self.latents[start : start + at_once][tokens.counted]
            nothing = torch.zeros(len(dense), 1)
            codes = SparseCodes.from_dense(dense)
            yield Observation(nothing, nothing, codes, torch.ones(1), tokens=tokens, origin=origin)

    def context(self) -> EvaluationContext:
        data = SimpleNamespace(
            language_model=Letters, model_name="letters", layer="0", source_sites=(), target_sites=()
        )
        coder = SimpleNamespace(n_latents=self.latents.shape[2], by_layer=tuple)
        return EvaluationContext(cast(Any, coder), cast(Any, data), list, 1000, 8, "cpu")

    def result(self, at_once: int = 3, parts: int = 1, **options: Any) -> SamplesResult:
        """What is found in batches of so many contexts, by as many accumulators, which are merged."""
        evaluation = SamplesEvaluation(SamplesConfig(**options))
        accumulators: list[Any] = [evaluation.start(self.context()) for _ in range(parts)]
        for last in (False, True):
            for number, seen in enumerate(self.observations(at_once)):
                accumulators[number % parts].update(seen)
            for other in accumulators[1:]:
                accumulators[0].merge(other)
            if not last:
                accumulators = [accumulators[0].next_pass() for _ in range(parts)]
        self.last = accumulators[0]
        found: SamplesResult = self.last.result()
        return found


def random_latents(n: int, length: int, n_latents: int, share: float, *, seed: int = 0) -> Tensor:
    """Sparse latents of either sign, silent at the first position."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, length, n_latents, generator=generator)
    values[torch.rand(n, length, n_latents, generator=generator) > share] = 0
    values[:, 0] = 0
    return values


@pytest.fixture
def make_text() -> type[Made]:
    """Made-up text and codes, from latents."""
    return Made


@pytest.fixture
def drawn() -> Any:
    """Random sparse latents: ``(contexts, positions, latents, share that fires)``."""
    return random_latents
