"""LanguageModel: vectors at its sites, read and replaced.

Shapes: B contexts, T positions, D width, V tokens.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """Contexts of a language model.

    Attributes:
        ids: int64 ``[B, T]``.
        counted: bool ``[B, T]``: positions that training and metrics use (no BOS, padding, other specials).
        attention: bool ``[B, T]``: positions that are real input; all true for packed text.
        documents: int64 ``[B, T]``: the number of the document that each token is from, -1 for a token of
            none; None where that is not known.
    """

    ids: Tensor
    counted: Tensor
    attention: Tensor
    documents: Tensor | None = None

    def rows(self, which: slice | Tensor) -> TokenBatch:
        """Some of the contexts."""
        documents = None if self.documents is None else self.documents[which]
        return TokenBatch(self.ids[which], self.counted[which], self.attention[which], documents)


Edit = Callable[[Tensor], Tensor]
"""Replaces the vectors at a site: ``[B, T, D] -> [B, T, D]``."""


class LanguageModel(abc.ABC):
    """A language model whose vectors can be read and replaced at a site."""

    name: str
    """Short name for paths and tables (``smollm2-135m``)."""

    @abc.abstractmethod
    def read(self, batch: TokenBatch, sites: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Tensor]:
        """Vectors float32 ``[B, T, D]`` at ``(layer, site)``; the forward stops after the last layer read."""

    @abc.abstractmethod
    def logits(self, batch: TokenBatch, edits: Mapping[tuple[int, str], Edit] | None = None) -> Tensor:
        """Logits ``[B, T, V]`` with the vectors at the sites replaced; everything downstream sees it."""

    @property
    @abc.abstractmethod
    def predicts_next(self) -> bool:
        """True for causal models (position t predicts token t + 1); False for encoders (no such loss)."""

    @property
    def has_logits(self) -> bool:
        """Whether ``logits`` can be had; False for a model that was saved without its head."""
        return True
