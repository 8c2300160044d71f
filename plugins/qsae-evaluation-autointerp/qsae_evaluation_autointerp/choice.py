"""Which latents are judged, and around which places there may be windows. Shapes: N entries, F latents."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import torch
from qsae_samples import Entries, best_of_each, hashed
from torch import Tensor

from qsae_evaluation_autointerp.firings import SCORES, own_hash

if TYPE_CHECKING:
    from qsae_evaluation_autointerp.firings import Firings, Text

ORDER, HARD, POOL = 3, 4, 5
"""What is added to the seed, so that these hashes are independent of each other."""
TRIED = 8
"""Places with the latent's token that are looked at for each hard negative."""
DRAWN = 64
"""Places drawn at random, the same for all latents, for each negative: a latent that is silent in one window
of so many has negatives enough."""
ROUNDING = 1e-9
"""By which a number may be below the whole one that it is."""
SILENT = "it never fires"
FEW_EXPLAINING = "too few windows in which it fires, in the documents that explain"
FEW_SCORING = "too few windows in which it fires, in the documents that score"
NOT_DRAWN = "others were drawn"


class Chosen(NamedTuple):
    """A latent's places, int64 each."""

    latent: int
    top: Tensor
    ranks: Tensor
    """The strongest part by rank first."""
    positives: Tensor
    hard: Tensor
    """Where the latent's token is; silent or not is not known yet."""
    n_hard: int
    """How many of these are wanted."""


class Choice(NamedTuple):
    """What the second pass reads."""

    latents: list[Chosen]
    """In the order in which they are judged."""
    pool: Tensor
    """int64: places of the scoring half, drawn at random."""
    left_out: Counter[str]
    """Why latents are not judged -> how many."""
    n_eligible: int


def choose(firings: Firings) -> Choice:
    """Of the latents with windows enough in both halves, those whose number has the least hash."""
    config = firings.config
    n_explain, n_score = (
        torch.bincount(kept.entries().group, minlength=firings.n_latents)
        for kept in (firings.explaining, firings.scoring)
    )
    silent = firings.count == 0
    few_explaining = ~silent & (n_explain < config.top + config.ranks)
    few_scoring = ~silent & ~few_explaining & (n_score < config.positives)
    eligible = (~silent & ~few_explaining & ~few_scoring).nonzero()[:, 0]
    drawn = eligible[hashed(eligible, config.seed + ORDER).argsort(stable=True)][: config.latents]
    reasons = {SILENT: silent, FEW_EXPLAINING: few_explaining, FEW_SCORING: few_scoring}
    left_out = Counter({reason: int(which.sum()) for reason, which in reasons.items()})
    left_out[NOT_DRAWN] = len(eligible) - len(drawn)
    if not len(drawn):
        return Choice([], eligible, left_out, len(eligible))
    text = firings.text()
    pool = _pool(firings, text)
    return Choice(_places(firings, text, drawn.tolist(), pool), pool, left_out, len(eligible))


def _places(firings: Firings, text: Text, latents: list[int], pool: Tensor) -> list[Chosen]:
    config = firings.config
    strongest, explaining, scoring = (
        _by_latent(kept.entries(), latents)
        for kept in (firings.top, firings.explaining, firings.scoring)
    )  # fmt: skip
    occurrences = _Occurrences(text, firings)
    found = []
    for j in latents:
        top = strongest[j]
        others = explaining[j].rows(~torch.isin(explaining[j].document, top.document))
        ranks = _one_of_each_part(others, config.ranks)
        tokens = text.token[torch.searchsorted(text.place, torch.cat([top.place, ranks]))]
        token = _most_frequent(tokens)
        where_it_fires, anywhere = (occurrences.share(p, token) for p in (scoring[j].place, pool))
        n = config.negatives + config.hard_negatives
        n_hard = hard_negatives(where_it_fires, anywhere, n, config.hard_negatives)
        hard = occurrences.of(token, j, TRIED * n_hard)
        positives = _one_of_each_part(scoring[j], config.positives)
        found.append(Chosen(j, top.place, ranks, positives, hard, n_hard))
    return found


def _by_latent(entries: Entries, latents: list[int]) -> dict[int, Entries]:
    """What is kept of each latent; entries are ordered by it."""
    wanted = torch.tensor(latents)
    starts = torch.searchsorted(entries.group, wanted).tolist()
    ends = torch.searchsorted(entries.group, wanted, right=True).tolist()
    spans = zip(latents, starts, ends, strict=True)
    return {j: entries.rows(torch.arange(start, end)) for j, start, end in spans}


def _one_of_each_part(entries: Entries, n: int) -> Tensor:
    """int64 ``[n]``: the places of entries, one of each of n equal parts by magnitude, that of least key.

    Args:
        entries: of one latent, n or more, ordered by key.
    """
    by_strength = entries.value.abs().argsort(descending=True, stable=True)  # of equal ones, by key
    size = len(by_strength)
    parts = [by_strength[size * i // n : size * (i + 1) // n] for i in range(n)]
    if not parts:
        return entries.place[:0]
    return torch.stack([entries.place[part[entries.key[part].argmin()]] for part in parts])


def _most_frequent(tokens: Tensor) -> int:
    """The smallest of those that are there most often."""
    distinct, counts = tokens.unique(return_counts=True)
    return int(distinct[counts.argmax()])


def hard_negatives(where_it_fires: float, anywhere: float, n: int, most: int) -> int:
    """How many of n windows where a latent is silent are to have its token.

    So many that the token is in no larger a share of these than of the windows where it fires, and ``most``
    at most. With more, a latent that fires at random positions would be told wrongly by its token.

    Args:
        where_it_fires: share of the windows where it fires that have the token.
        anywhere: of all windows.
    """
    if where_it_fires <= anywhere:
        return 0
    # h + (n - h) anywhere = n where_it_fires
    return min(most, int(n * (where_it_fires - anywhere) / (1 - anywhere) + ROUNDING))


class _Occurrences:
    """Where each token is, in the documents that score."""

    def __init__(self, text: Text, firings: Firings) -> None:
        mine = text.half == SCORES
        place, token = text.place[mine], text.token[mine]
        order = token.argsort(stable=True)
        self.place, self.token, self.firings = place[order], token[order], firings

    def of(self, token: int, latent: int, n: int) -> Tensor:
        """int64: n places of a token at most, one of a stretch, those of the latent's least hash."""
        place = self._all(token)
        latents = torch.full_like(place, latent)
        return _least(place, own_hash(latents, place, self.firings.config.seed + HARD), n, self.firings)

    def share(self, around: Tensor, token: int) -> float:
        """Of the windows around places, the share that have a token."""
        place, config = self._all(token), self.firings.config
        # a place less than none of a context is behind all of the one before
        first = torch.searchsorted(place, around - config.before)
        has = first < torch.searchsorted(place, around + config.after, right=True)
        return float(has.double().mean())

    def _all(self, token: int) -> Tensor:
        """int64, ascending."""
        start, end = (
            int(torch.searchsorted(self.token, torch.tensor(token, dtype=torch.int32), right=right))
            for right in (False, True)
        )
        return self.place[start:end]


def _pool(firings: Firings, text: Text) -> Tensor:
    config = firings.config
    place = text.place[text.half == SCORES]
    n = DRAWN * (config.negatives + config.hard_negatives)
    return _least(place, hashed(place, config.seed + POOL), n, firings)


def _least(place: Tensor, key: Tensor, n: int, firings: Firings) -> Tensor:
    """int64: the places of least key, n at most and one of a stretch, that of the least first."""
    entries = Entries(torch.zeros_like(place), key, firings.stretch(place), place, torch.zeros(len(place)))
    return best_of_each(entries, n).place if n else place[:0]
