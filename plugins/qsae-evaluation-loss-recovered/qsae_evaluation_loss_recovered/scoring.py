"""Cross-entropy and KL of next-token predictions, pooled over a stream.

Shapes: B contexts, T positions, V vocabulary, N predictions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from qsae_core.contracts import TokenBatch

CACHED = 2**18
"""Entries of one tensor of log-probabilities on a CPU: what is computed of them stays in its caches."""
ROWS = 256
"""Predictions whose log-probabilities are one tensor elsewhere."""


@dataclass
class Totals:
    """Sums over predictions in float64.

    Attributes:
        ce: sum of -log p(next token).
        kl: sum of KL(clean || these); 0 for the clean model itself.
    """

    ce: float = 0.0
    kl: float = 0.0

    def mean_ce(self, count: int) -> float | None:
        """Nats per prediction; None where there are none or the sum is not finite."""
        return _mean(self.ce, count)

    def mean_kl(self, count: int) -> float | None:
        """Nats per prediction; None where there are none or the sum is not finite."""
        return _mean(self.kl, count)

    def add(
        self, log_q: Iterable[Tensor], targets_N: Tensor, log_p: Iterable[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take the predictions of one pass into account; gives the cross-entropy and the KL of each, float64
        ``[N]``.

        Args:
            log_q: their ``log_probabilities``.
            log_p: those of the clean pass; None where this is that pass.
        """
        clean = itertools.repeat(None) if log_p is None else log_p
        of_each: tuple[list[Tensor], list[Tensor]] = ([], [])
        done = 0
        for q, p in zip(log_q, clean, strict=log_p is not None):
            target = targets_N[done : done + len(q)]
            ce = -q.gather(1, target[:, None])[:, 0].double()
            of_each[0].append(ce)
            of_each[1].append(torch.zeros_like(ce) if p is None else divergence(p, q).double())
            done += len(q)
        ce_N, kl_N = torch.cat(of_each[0]), torch.cat(of_each[1])
        self.ce, self.kl = self.ce + float(ce_N.sum()), self.kl + float(kl_N.sum())
        return ce_N, kl_N


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each row, float32 ``[N]``; nan or infinite only where it is so with 0 log 0 = 0."""
    p, difference = log_p.exp(), log_p - log_q
    found = torch.linalg.vecdot(p, difference)
    if bool(found.isfinite().all()):
        return found
    return torch.linalg.vecdot(p, difference.masked_fill_(log_p == -torch.inf, 0))


def log_probabilities(logits_BTV: Tensor, predictions_N: Tensor) -> Iterator[Tensor]:
    """Those of the predictions at these places of ``B * T``, some after some: float32 ``[n, V]``."""
    logits = logits_BTV.reshape(-1, logits_BTV.shape[-1])
    rows = max(1, CACHED // logits.shape[1]) if logits.device.type == "cpu" else ROWS
    for index in torch.split(predictions_N, rows):
        yield logits[index].float().log_softmax(-1)


def scored_positions(batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Which predictions count, as indices into ``B * T``, and their targets: both int64 ``[N]``.

    Position t counts where it is counted, so that its vector is one that is replaced, and where the next
    token is counted, so that it is real text and no special token, and of the same segment, so that it
    follows on it.
    """
    counts = torch.zeros_like(batch.counted)
    counts[:, :-1] = batch.counted[:, :-1] & batch.counted[:, 1:]
    if batch.segments is not None:
        counts[:, :-1] &= batch.segments[:, :-1] == batch.segments[:, 1:]
    index = counts.flatten().nonzero()[:, 0]
    return index, batch.ids.flatten()[index + 1]


def recovered(ablated: float | None, spliced: float | None, clean: float | None) -> float | None:
    """(ablated - spliced) / (ablated - clean); None where the ablation does no damage."""
    if ablated is None or spliced is None or clean is None or ablated <= clean:
        return None
    return (ablated - spliced) / (ablated - clean)


def _mean(total: float, count: int) -> float | None:
    return total / count if count and math.isfinite(total) else None
