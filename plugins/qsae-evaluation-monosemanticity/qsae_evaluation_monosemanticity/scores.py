"""What follows from counts of pairs. Shapes: F latents, V tokens, P pairs."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import LanguageModel, Table
from qsae_core.errors import QsaeError
from qsae_evaluation_monosemanticity.entropy import RandomPositions, c_log_c, corrected
from qsae_evaluation_monosemanticity.pair_counts import Pairs


class Scores(NamedTuple):
    """A number for each latent, float64 ``[F]``; NaN where it is not defined."""

    fired: Tensor
    """n, on how many tokens; NaN for latents that were not counted."""
    distinct_tokens: Tensor
    """K, on how many different ones."""
    entropy: Tensor
    """H_mm in bits; NaN for fewer firings than asked for, as the next two."""
    entropy_null: Tensor
    """The same of n random positions, on average."""
    monosemanticity: Tensor
    """1 - H_mm / H_null."""


def scores(pairs: Pairs, counted_F: Tensor, unigram_V: Tensor, min_fired: int) -> Scores:
    """Of each latent.

    Args:
        counted_F: bool, which latents ``pairs`` has.
        unigram_V: int64, how often each token occurs.
        min_fired: of how many firings on a latent has a score.
    """
    n_latents = len(counted_F)
    n_F, distinct_F = (torch.zeros(n_latents, dtype=torch.int64) for _ in range(2))
    n_F.index_add_(0, pairs.latents, pairs.counts)
    distinct_F.index_add_(0, pairs.latents, torch.ones_like(pairs.counts))
    sums_F = torch.zeros(n_latents, dtype=torch.float64)
    sums_F.index_add_(0, pairs.latents, c_log_c(pairs.counts))
    enough = counted_F & (n_F >= min_fired)
    entropy_F, null_F, score_F = (torch.full_like(sums_F, math.nan) for _ in range(3))
    entropy_F[enough] = corrected(n_F[enough].double(), sums_F[enough], distinct_F[enough].double())
    if enough.any():
        null_F[enough] = RandomPositions(unigram_V).entropy(n_F[enough])
    defined = null_F > 0  # not so where the text is a single token
    score_F[defined] = 1 - entropy_F[defined] / null_F[defined]
    fired_F, kinds_F = (column.double().where(counted_F, math.nan) for column in (n_F, distinct_F))
    return Scores(fired_F, kinds_F, entropy_F, null_F, score_F)


class Frequent(NamedTuple):
    """The most frequent token of each latent; NaN where it did not fire or was not counted."""

    token: Tensor
    """float64 ``[F]``: its number."""
    share: Tensor
    """float64 ``[F]``: the share of the latent's firings that are on it."""


def most_frequent(pairs: Pairs, fired_F: Tensor) -> Frequent:
    """Of each latent; of equally frequent ones the first."""
    token_F, share_F = torch.full_like(fired_F, math.nan), torch.full_like(fired_F, math.nan)
    order = _by_count(pairs)
    latents = pairs.latents[order]
    first = torch.ones_like(latents, dtype=torch.bool)
    first[1:] = latents[1:] != latents[:-1]
    best = order[first]
    which = pairs.latents[best]
    token_F[which] = pairs.tokens[best].double()
    share_F[which] = pairs.counts[best] / fired_F[which]
    return Frequent(token_F, share_F)


def top_tokens(
    pairs: Pairs, found: Scores, unigram_V: Tensor, sizes: tuple[int, int], model: LanguageModel
) -> Table:
    """The most frequent tokens of the latents with the highest scores.

    ``share`` is that of the latent's firings, ``lift`` how many times that of the token in the text it is.

    Args:
        sizes: how many latents, and how many tokens of each.
        model: whose tokens they are; its text stands as a Python literal (``' the'``), where it is known.
    """
    n_latents, n_tokens = sizes
    score = found.monosemanticity.nan_to_num(-math.inf)
    by_score = sorted(range(len(score)), key=lambda j: (-float(score[j]), -float(found.fired[j]), j))
    rows: list[tuple[int | float | str | None, ...]] = []
    order, total = _by_count(pairs), int(unigram_V.sum())
    latents = pairs.latents[order].contiguous()
    for latent in [j for j in by_score[:n_latents] if score[j] > -math.inf]:
        start = int(torch.searchsorted(latents, latent))
        end = int(torch.searchsorted(latents, latent, right=True))
        for rank, place in enumerate(order[start : min(end, start + n_tokens)].tolist()):
            token, count = int(pairs.tokens[place]), int(pairs.counts[place])
            share = count / float(found.fired[latent])
            lift = share * total / float(unigram_V[token])
            score_and_n = float(score[latent]), int(found.fired[latent])
            rows.append((latent, *score_and_n, rank + 1, token, text_of(model, token), count, share, lift))
    columns = ("latent", "monosemanticity", "fired", "rank", "token", "text", "count", "share", "lift")
    return Table(columns, rows)


def text_of(model: LanguageModel, token: int) -> str | None:
    """A token's text as a Python literal, that of bytes where it is a part of a character; None where the
    model's tokenizer is not known."""
    try:
        text, part = model.decode([token]), model.partial_bytes(token)
        return repr(text if part is None else part)
    except QsaeError:
        return None


def _by_count(pairs: Pairs) -> Tensor:
    """int64 ``[P]``: by latent, then the most frequent token first, then the smaller number."""
    by_count = pairs.counts.argsort(descending=True, stable=True)
    return by_count[pairs.latents[by_count].argsort(stable=True)]
