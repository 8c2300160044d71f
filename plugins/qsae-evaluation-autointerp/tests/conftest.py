"""Made-up text and codes, shown in batches of any number of contexts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from qsae_evaluation_autointerp import AutointerpConfig
from qsae_evaluation_autointerp.evaluation import Autointerp
from torch import Tensor

from qsae_core.contracts import EvaluationContext, Observation, Origin, SparseCodes, TokenBatch

RANDOM = 40
"""Latents that fire at random positions."""
PAIR = 20
"""The latent that fires on token 30 behind token 3 alone."""


class Words:
    """A language model whose token i is `` wi``; 0 is the special token."""

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        return "".join(f" w{int(i)}" for i in ids)


class Made:
    """Contexts with a special token at the beginning and two documents each, and dense latents of all tokens.

    Args:
        ids_CT: the tokens; the first of each context is 0.
        latents_CTF: what fires where; nothing at special tokens.
    """

    pair = PAIR

    def __init__(self, ids_CT: Tensor, latents_CTF: Tensor) -> None:
        n, length = ids_CT.shape
        counted = ids_CT != 0
        documents = 2 * torch.arange(n)[:, None] + (torch.arange(length) > length // 2)
        self.tokens = TokenBatch(ids_CT, counted, torch.ones_like(counted), documents.where(counted, -1))
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

    def context(self, model: type = Words) -> EvaluationContext:
        coder = SimpleNamespace(n_latents=self.latents.shape[2], by_layer=tuple)
        data = SimpleNamespace(language_model=model, model_name="words", layer="0")
        return EvaluationContext(cast(Any, coder), cast(Any, data), list, 1000, 8, "cpu")

    def read(self, at_once: int = 16, parts: int = 1, judge: Any = None, **options: Any) -> Any:
        """What has seen all: of both passes, where there is a second one.

        Args:
            parts: accumulators that see a part each, and are merged.
            judge: in place of the one that the options choose.
        """
        evaluation = Autointerp(AutointerpConfig(**options))
        accumulators: list[Any] = [evaluation.start(self.context()) for _ in range(parts)]
        if judge is not None:
            accumulators[0].judge = judge
        while True:
            for number, seen in enumerate(self.observations(at_once)):
                accumulators[number % parts].update(seen)
            for other in accumulators[1:]:
                accumulators[0].merge(other)
            following = [accumulators[0].next_pass() for _ in range(parts)]
            if following[0] is None:
                return accumulators[0]
            accumulators = following


def latents_of(ids_CT: Tensor, generator: torch.Generator) -> Tensor:
    """Latents 0 to 19 fire on token 10 + j, latent 20 on 30 behind 3, 21 to 60 on random positions."""
    found = torch.zeros(*ids_CT.shape, PAIR + 1 + RANDOM)
    for j in range(PAIR):
        found[..., j] = ids_CT == 10 + j
    found[:, 1:, PAIR] = ((ids_CT[:, 1:] == 30) & (ids_CT[:, :-1] == 3)).float()
    found[..., PAIR + 1 :] = torch.rand(*ids_CT.shape, RANDOM, generator=generator) < 0.02
    return found * (0.5 + torch.rand(found.shape, generator=generator)) * (ids_CT != 0)[..., None]


@pytest.fixture(scope="session")
def made() -> Made:
    """200 contexts of 64 tokens; tokens 1 to 60 are equally frequent, but 3 and 30, which are five times as
    frequent."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.ones(61)
    shares[0], shares[3], shares[30] = 0, 5, 5
    ids = torch.multinomial(shares, 200 * 65, True, generator=generator).view(200, 65)
    ids[:, 0] = 0
    return Made(ids, latents_of(ids, generator))
