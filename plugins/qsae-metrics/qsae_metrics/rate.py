"""The metric ``rate``: bits per token of a code. Shapes: B tokens, F latents, L levels, N active entries."""

from __future__ import annotations

import math
import pathlib
from typing import cast

import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.conformance import Case
from qsae_core.contracts import Metric, Observation
from qsae_core.measuring import FIT, CodeCounts, support_bits, value_bits
from qsae_metrics import RateConfig
from qsae_metrics.moments import ratio

SCORE = 1


class Rate(Metric):
    """Bits per token that a code takes, as a code length: fitted on half of the stream, scored on the rest.

    Blocks of ``block`` tokens take turns: the first is fitted, the second scored, and so on. p_j is the share
    of fitted tokens on which latent j is active, (n_j + 1/2) / (n + 1) (Krichevsky and Trofimov, 1981).

    ``bits_support`` = which latents are active, each coded on its own: the mean over scored tokens of
    sum_j -log2 p_j where j is active and -log2 (1 - p_j) where not. It is sum_j h2(p_j) where both halves
    agree;
    ``bits_support_enumerated`` = the same told as one of the C(F, l0) sets of that size: mean log2 C(F, l0),
    and the cost of l0 itself where it varies. With fixed k it is log2 C(F, k);
    ``bits_values`` = sum over active latents of -log2 q_j(level), levels as the code quantizer stores them;
    q_j are the latent's own fitted frequencies, mixed with those of all latents (weight 16 observations);
    32 for each active latent where values are not quantized;
    ``bits_per_value`` = bits_values per active latent: exactly 32 where values are not quantized;
    ``bits_per_token`` = bits_support + bits_values.

    None where no token is fitted or none is scored: streams of one block or less.
    """

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        self._block = cast(RateConfig, config).block
        self.reset()

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """The default, and blocks of which a short stream has several."""
        return [Case(), Case({"block": 8})]

    def reset(self) -> None:
        """Forget everything."""
        self._counts = CodeCounts(self._block, groups=1)
        self._sizes: Tensor | None = None  # int64 [2, F + 1]: tokens with that many active latents

    def update(self, observation: Observation) -> None:
        """Take one batch into account.

        Raises:
            ValueError: where the number of latents has changed, or whether values are quantized.
        """
        codes = observation.codes
        half_B = self._counts.update(observation)
        if self._sizes is None:
            self._sizes = torch.zeros(2, codes.n_latents + 1, dtype=torch.int64)
        sizes = half_B * (codes.n_latents + 1) + codes.l0().cpu()
        self._sizes += torch.bincount(sizes, minlength=self._sizes.numel()).view_as(self._sizes)

    def merge(self, other: Rate) -> None:
        """Add the counts of another one. Blocks are those of the whole stream, whoever has seen them, where
        observations say which tokens they are (``Observation.first``).

        Raises:
            ValueError: where its codes have other latents, or only one of the two has quantized values.
        """
        self._counts.merge(other._counts)
        if other._sizes is not None:
            self._sizes = other._sizes.clone() if self._sizes is None else self._sizes + other._sizes

    def compute(self) -> dict[str, float | None]:
        """The values named above."""
        names = ("bits_support", "bits_support_enumerated", "bits_values", "bits_per_value", "bits_per_token")
        values: dict[str, float | None] = dict.fromkeys(names)
        counts, active = self._counts, self._counts.active
        fitted, scored = counts.tokens.tolist()
        if active is None or self._sizes is None or not fitted or not scored:
            return values
        support = float(support_bits(counts, active).sum())
        of_values = float(value_bits(counts, active).sum())
        values["bits_support"] = support / scored
        values["bits_support_enumerated"] = _enumerated_bits(self._sizes) / scored
        values["bits_values"] = of_values / scored
        values["bits_per_value"] = ratio(of_values, float(active[SCORE].sum()))
        values["bits_per_token"] = (support + of_values) / scored
        return values


def _enumerated_bits(sizes_2S: Tensor) -> float:
    """Bits of all scored tokens, each told as how many latents are active and which set of that size."""
    n_latents = sizes_2S.shape[1] - 1
    size_S = torch.arange(n_latents + 1, dtype=torch.float64)
    choices_S = math.lgamma(n_latents + 1) - (size_S + 1).lgamma() - (n_latents - size_S + 1).lgamma()
    scored_S = sizes_2S[SCORE].double()
    bits = float((scored_S * choices_S).sum()) / math.log(2)
    if int((sizes_2S.sum(0) > 0).sum()) > 1:  # a constant size is told once and for all
        fit_S = sizes_2S[FIT].double()
        p_S = (fit_S + 1 / (n_latents + 1)) / (fit_S.sum() + 1)
        bits -= float((scored_S * p_S.log2()).sum())
    return bits
