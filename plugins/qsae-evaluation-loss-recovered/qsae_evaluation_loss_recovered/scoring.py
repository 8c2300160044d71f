"""Cross-entropy and KL of next-token predictions, pooled over a stream.

Shapes: B contexts, T positions, V vocabulary, N predictions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qsae_core.contracts import TokenBatch

ROWS = 256
"""Predictions whose log-probabilities ``[ROWS, V]`` exist at once."""


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

    def add(self, logits_BTV: Tensor, clean_BTV: Tensor, predictions_N: Tensor, targets_N: Tensor) -> None:
        """Take the predictions of one pass into account; log-probabilities are float32."""
        n_vocabulary = logits_BTV.shape[-1]
        logits, clean = logits_BTV.reshape(-1, n_vocabulary), clean_BTV.reshape(-1, n_vocabulary)
        parts = zip(torch.split(predictions_N, ROWS), torch.split(targets_N, ROWS), strict=True)
        for index, target in parts:
            log_q = logits[index].float().log_softmax(-1)
            self.ce -= float(log_q.gather(1, target[:, None]).double().sum())
            if clean_BTV is not logits_BTV:
                log_p = clean[index].float().log_softmax(-1)
                difference = (log_p - log_q).masked_fill_(log_p == -torch.inf, 0)  # 0 log 0 = 0
                self.kl += float((log_p.exp() * difference).double().sum())


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
