"""Documents of a context that do not see each other: positions that begin anew, and whether a model obeys.

B contexts, T positions, D width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qsae_core.contracts import LanguageModel, Site, TokenBatch
from qsae_core.errors import DataError

PROBE = 16
"""Positions of each of the two documents by which a model is tried."""
ROUNDING = 0.1
"""The share of an effect that is taken for rounding, in bf16 too, where there should be none of it."""


def positions_in_segments(segments_BT: Tensor, attention_BT: Tensor) -> Tensor:
    """int64 [B, T]: 0, 1, 2, ... in each segment; a padding position is one of its own."""
    begins = torch.ones_like(attention_BT, dtype=torch.bool)
    begins[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    begins[:, 1:] |= ~attention_BT[:, 1:] | ~attention_BT[:, :-1]
    places = torch.arange(segments_BT.shape[1], device=segments_BT.device).expand_as(segments_BT)
    return places - torch.where(begins, places, 0).cummax(1).values


def check_segments(model: LanguageModel, site: Site, vocabulary: int, context: int) -> None:
    """Try two documents in one context: the second one's vectors must not change with the first one's tokens,
    and have to be those of it alone.

    An architecture that takes no positions, or makes its mask without them, is found out so, in whatever
    version of the library.

    Args:
        model: of any kind.
        site: a late one.
        vocabulary: tokens that the model embeds.
        context: positions of a context.

    Raises:
        DataError: if the model does not keep them apart.
    """
    n = min(PROBE, context // 2)
    first, other, second = torch.randint(vocabulary, (3, n), generator=torch.Generator().manual_seed(0))
    segments = (torch.arange(2 * n) >= n).long()[None]

    def vectors(*documents: Tensor, apart: bool = False) -> Tensor:
        batch = whole_of(torch.cat(documents)[None])
        batch = replace(batch, segments=segments) if apart else batch
        return model.read(batch, [site])[site][0, -n:].double()

    apart = vectors(first, second, apart=True)  # at first, for a model may refuse
    alone, together = vectors(second), vectors(first, second)
    moved = (vectors(other, second, apart=True) - apart).norm()
    if moved > ROUNDING * (vectors(other, second) - together).norm():
        raise not_apart(model.name, "the vectors of one change with the tokens of the one before it")
    if (apart - alone).norm() > ROUNDING * (together - alone).norm():
        raise not_apart(model.name, "the vectors of one are not those of it alone")


def whole_of(ids: Tensor) -> TokenBatch:
    """Contexts of which every position is real and counts."""
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    return TokenBatch(ids, everywhere, everywhere)


def not_apart(model: str, why: str) -> DataError:
    """The refusal of a model that cannot keep segments apart."""
    return DataError(
        f"{model} does not keep the documents of a context apart: {why}",
        where="data.separate_documents",
        allowed="causal models of which transformers divides a context by its positions, as of Llama, GPT-2, "
        "GPT-NeoX or Gemma",
        next="leave --separate-documents out, or take another model",
    )
