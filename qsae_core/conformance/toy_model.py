"""A language model of a few hundred weights. Shapes: B contexts, T positions, D width, V tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from qsae_core.contracts.language_model import Edit, LanguageModel, TokenBatch


class ToyLanguageModel(LanguageModel):
    """Embeds each token, mixes in the one before, and predicts the next token from that one vector.

    Its text follows a fixed table of successors, so that its predictions are better than chance.
    """

    SITE = (0, "resid_post")
    name = "toy"
    context = 9

    def __init__(self, width: int, n_vocabulary: int = 24) -> None:
        generator = torch.Generator().manual_seed(9)
        self.n_vocabulary = n_vocabulary
        self.embedding_VD = torch.randn(n_vocabulary, width, generator=generator)
        self.successors = torch.randperm(n_vocabulary, generator=generator)

    def contexts(self, n: int, seed: int) -> TokenBatch:
        """``n`` contexts of the toy language; token 0 begins each of them and does not count."""
        generator = torch.Generator().manual_seed(seed % 2**31)
        size = (self.context,)
        drawn = [
            (
                torch.randint(1, self.n_vocabulary, size, generator=generator),
                torch.rand(size, generator=generator),
            )
            for _ in range(n)  # one context after the other, so that fewer contexts are the first of more
        ]
        ids = torch.stack([row for row, _ in drawn])
        follows = torch.stack([chance for _, chance in drawn]) < 0.7
        for t in range(1, self.context):
            ids[:, t] = torch.where(follows[:, t], self.successors[ids[:, t - 1]], ids[:, t])
        ids[:, 0] = 0
        counted = torch.ones_like(ids, dtype=torch.bool)
        counted[:, 0] = False
        documents = 2 * torch.arange(n)[:, None] + (torch.arange(self.context) > self.context // 2)
        return TokenBatch(ids, counted, torch.ones_like(counted), documents.where(counted, -1))

    def read(self, batch: TokenBatch, sites: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Tensor]:
        """Embedding of the token, and a fifth of the one before."""
        embedded = self.embedding_VD[batch.ids]
        before = torch.cat([torch.zeros_like(embedded[:, :1]), embedded[:, :-1]], dim=1)
        return dict.fromkeys(sites, embedded + 0.2 * before)

    def logits(self, batch: TokenBatch, edits: Mapping[tuple[int, str], Edit] | None = None) -> Tensor:
        """Similarity of the vector to the token that each candidate follows."""
        vectors = self.read(batch, [self.SITE])[self.SITE]
        for edit in (edits or {}).values():
            vectors = edit(vectors)
        logits = torch.empty(*vectors.shape[:2], self.n_vocabulary)
        logits[..., self.successors] = vectors @ self.embedding_VD.T
        return logits

    @property
    def predicts_next(self) -> bool:
        """True: position t predicts token t + 1."""
        return True
