"""A language model of a few hundred weights. Shapes: B contexts, T positions, D width, V tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsae_core.contracts.language_model import Edits, LanguageModel, Site, TokenBatch, not_before
from qsae_core.errors import ConfigError


class ToyLanguageModel(LanguageModel):
    """Embeds each token (``BEFORE``), mixes in the one before (``SITE``), predicts the next from that.

    Its text follows a fixed table of successors, so that its predictions are better than chance.
    """

    BEFORE, SITE = Site(0, "resid_pre"), Site(0, "resid_post")
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

    def read(self, batch: TokenBatch, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """Embedding of the token; behind it, that and a fifth of the one before."""
        found = self._vectors(batch.ids, None, {}, batch.segments)
        return {site: found[site] for site in sites}

    def logits(self, batch: TokenBatch, edits: Edits | None = None) -> Tensor:
        """Similarity of the vector to the token that each candidate follows."""
        return self._predicted(self._vectors(batch.ids, None, edits or {}, batch.segments)[self.SITE])

    def extend(self, ids: Tensor, cache: Tensor | None, edits: Edits) -> tuple[Tensor, Tensor]:
        """The cache is the last position's embedding ``[B, 1, D]``, as edited."""
        found = self._vectors(ids, cache, edits)
        return self._predicted(found[self.SITE][:, -1:])[:, 0], found[self.BEFORE][:, -1:]

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """``w3 w17 w0``."""
        return " ".join(f"w{int(i)}" for i in ids)

    def encode(self, text: str) -> list[int]:
        """``w3 w17`` -> 3, 17."""
        return [int(word.removeprefix("w")) for word in text.split()]

    @property
    def begin_id(self) -> int:
        """0, with which contexts begin."""
        return 0

    @property
    def special_ids(self) -> frozenset[int]:
        """That one."""
        return frozenset({0})

    def _vectors(
        self, ids_BT: Tensor, last_B1D: Tensor | None, edits: Edits, segments_BT: Tensor | None = None
    ) -> dict[Site, Tensor]:
        _check_edits(edits)
        found: dict[Site, Tensor] = {}
        embedded = self._edited(self.BEFORE, self.embedding_VD[ids_BT], edits, found)
        first = torch.zeros_like(embedded[:, :1]) if last_B1D is None else last_B1D
        before = torch.cat([first, embedded[:, :-1]], dim=1)
        if segments_BT is not None:
            before[:, 1:][segments_BT[:, 1:] != segments_BT[:, :-1]] = 0
        self._edited(self.SITE, embedded + 0.2 * before, edits, found)
        return found

    def _edited(self, site: Site, vectors_BTD: Tensor, edits: Edits, found: dict[Site, Tensor]) -> Tensor:
        if site in edits:
            edit = edits[site]
            vectors_BTD = edit.replace(vectors_BTD, {read: found[read] for read in edit.reads})
        found[site] = vectors_BTD
        return vectors_BTD

    def _predicted(self, vectors_BTD: Tensor) -> Tensor:
        logits = torch.empty(*vectors_BTD.shape[:2], self.n_vocabulary)
        logits[..., self.successors] = vectors_BTD @ self.embedding_VD.T
        return logits

    @property
    def predicts_next(self) -> bool:
        """True: position t predicts token t + 1."""
        return True


def _check_edits(edits: Edits) -> None:
    order = [ToyLanguageModel.BEFORE, ToyLanguageModel.SITE]
    for edited, edit in edits.items():
        for site in (edited, *edit.reads):
            if site not in order:
                raise ConfigError(f"the toy model has no site {site}", allowed=", ".join(map(str, order)))
        for read in edit.reads:
            if order.index(read) >= order.index(edited):
                raise not_before(edited, read, [site.name for site in order])
