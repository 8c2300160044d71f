"""Entropies of counts, and what they are for random positions. Shapes: V tokens, F latents, P pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SPREAD = 12.0
"""Standard deviations about its mean, and counts beside them, within which a count is looked at; what lies
beyond has a chance below 1e-20."""


def corrected(n: Tensor, sum_c_log_c: Tensor, distinct: Tensor) -> Tensor:
    """float64: entropy in bits of n draws with counts c, and the correction of Miller (1955) and Madow.

    ``H = log2 n - sum c log2 c / n``, plus ``(K - 1) / (2 n ln 2)`` for K distinct outcomes. Linear in the
    last two, so expectations give an expectation.
    """
    plain = n.log2() - sum_c_log_c / n
    return plain + (distinct - 1) / (2 * n * math.log(2))


def c_log_c(counts: Tensor) -> Tensor:
    """float64 c log2 c, 0 for 0."""
    return torch.xlogy(counts.double(), counts.double()) / math.log(2)


class RandomPositions:
    """What ``corrected`` is on average for n positions of a text, drawn without drawing one twice.

    The count of a token that occurs c times among N is hypergeometric: exact, and nothing is drawn. With
    n = N it is the entropy of the text's own tokens.

    Args:
        unigram_V: int64, how often each token occurs.
    """

    def __init__(self, unigram_V: Tensor) -> None:
        occurring = unigram_V[unigram_V > 0]
        self.n_tokens = int(occurring.sum())
        self._occurs, self._how_many = occurring.unique(return_counts=True)
        self._log_factorial = torch.lgamma(torch.arange(self.n_tokens + 1, dtype=torch.float64) + 1)

    def entropy(self, n: Tensor) -> Tensor:
        """float64: for each n, int64 from 1 to N."""
        if len(self._occurs) == 1 and int(self._how_many) == 1:
            return torch.zeros_like(n, dtype=torch.float64)  # a single token, without rounding
        distinct, place = n.unique(return_inverse=True)
        found = [self._expected(int(size)) for size in distinct]
        return torch.tensor(found, dtype=torch.float64)[place]

    def _expected(self, n: int) -> float:
        c, N = self._occurs, self.n_tokens
        mean = n * c.double() / N
        reach = SPREAD * (mean * (1 - c / N)).clamp_min(0).sqrt() + SPREAD
        lowest = torch.maximum((mean - reach).ceil().long(), n - (N - c)).clamp_min(0)
        highest = torch.minimum((mean + reach).floor().long(), c).clamp_max(n)
        sizes = highest - lowest + 1
        group = torch.repeat_interleave(torch.arange(len(c)), sizes)
        starts = sizes.cumsum(0) - sizes
        x = lowest[group] + (torch.arange(len(group)) - starts[group])
        weight = self._how_many[group] * (self._log_ways(c[group], x, n)).exp()
        return float(
            corrected(
                torch.tensor(float(n), dtype=torch.float64),
                (weight * c_log_c(x)).sum(),
                (weight * (x > 0)).sum(),
            )
        )

    def _log_ways(self, c: Tensor, x: Tensor, n: int) -> Tensor:
        """log P(x of the n positions have a token that occurs c times); int64 in, float64 out."""
        ways = self._log_choose(c, x) + self._log_choose(self.n_tokens - c, n - x)
        return ways - self._log_choose(torch.tensor(self.n_tokens), torch.tensor(n))

    def _log_choose(self, n: Tensor, k: Tensor) -> Tensor:
        return self._log_factorial[n] - self._log_factorial[k] - self._log_factorial[n - k]
