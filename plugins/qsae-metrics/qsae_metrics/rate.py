"""The metric ``rate``: bits per token of a code. Shapes: B tokens, F latents, L levels, N active entries."""

from __future__ import annotations

import math
import pathlib
from typing import cast

import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.conformance import Case
from qsae_core.contracts import Metric, Observation, SparseCodes
from qsae_metrics import RateConfig
from qsae_metrics.moments import ratio

FLOAT_BITS = 32.0
SYMBOLS = 255
"""Levels that a uint8 can hold beside zero: the alphabet of the pooled distribution."""
POOLED_WEIGHT = 16.0
"""How many observations of its own a latent needs until they count as much as what all latents do."""
FIT, SCORE = 0, 1


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
        self._position = 0
        self._tokens = torch.zeros(2, dtype=torch.int64)
        self._active: Tensor | None = None  # int64 [2, F]: tokens on which each latent is active
        self._sizes: Tensor | None = None  # int64 [2, F + 1]: tokens with that many active latents
        self._levels: Tensor | None = None  # int32 [2, F, L]: how often each latent takes each level
        self._quantized: bool | None = None

    def update(self, observation: Observation) -> None:
        """Take one batch into account.

        Raises:
            ValueError: where the number of latents has changed, or whether values are quantized.
        """
        codes, levels = observation.codes, observation.levels
        if self._active is None or self._sizes is None:
            self._active = torch.zeros(2, codes.n_latents, dtype=torch.int64)
            self._sizes = torch.zeros(2, codes.n_latents + 1, dtype=torch.int64)
            self._quantized = levels is not None
        n_latents = self._active.shape[1]
        if codes.n_latents != n_latents or self._quantized != (levels is not None):
            raise ValueError(
                f"codes of {codes.n_latents} latents after codes of {n_latents}"
                if codes.n_latents != n_latents
                else "values are quantized in some batches and not in others"
            )
        first = self._position if observation.first is None else observation.first
        half_B = (first + torch.arange(codes.batch_size)) // self._block % 2
        self._position = first + codes.batch_size
        self._tokens += torch.bincount(half_B, minlength=2)
        sizes = half_B * (n_latents + 1) + codes.l0().cpu()
        self._sizes += torch.bincount(sizes, minlength=self._sizes.numel()).view_as(self._sizes)
        active = codes.active
        half_N, latent_N = half_B[codes.rows[active].cpu()], codes.indices[active].long().cpu()
        row_N = half_N * n_latents + latent_N
        self._active += torch.bincount(row_N, minlength=self._active.numel()).view_as(self._active)
        if levels is not None:
            self._count_levels(row_N, levels[active].long().cpu(), codes)

    def _count_levels(self, row_N: Tensor, level_N: Tensor, codes: SparseCodes) -> None:
        needed = 1 << int(level_N.max()).bit_length() if len(level_N) else 1
        if self._levels is None:
            self._levels = torch.zeros(2, codes.n_latents, needed, dtype=torch.int32)
        width = self._levels.shape[2]
        if needed > width:
            self._levels = torch.nn.functional.pad(self._levels, (0, needed - width))
        key_N = row_N * self._levels.shape[2] + level_N
        self._levels.view(-1).index_add_(0, key_N, torch.ones_like(key_N, dtype=torch.int32))

    def merge(self, other: Rate) -> None:
        """Add the counts of another one. Blocks are those of the whole stream, whoever has seen them, where
        observations say which tokens they are (``Observation.first``).

        Raises:
            ValueError: where its codes have other latents, or only one of the two has quantized values.
        """
        if other._active is None or other._sizes is None:
            return
        if self._active is None or self._sizes is None:
            self._active, self._sizes = torch.zeros_like(other._active), torch.zeros_like(other._sizes)
            self._quantized = other._quantized
        if self._active.shape != other._active.shape or self._quantized != other._quantized:
            raise ValueError("codes of other latents, or quantized values beside others that are not")
        self._tokens += other._tokens
        self._active += other._active
        self._sizes += other._sizes
        if other._levels is not None:
            self._levels = other._levels if self._levels is None else _added(self._levels, other._levels)

    def compute(self) -> dict[str, float | None]:
        """The values named above."""
        names = ("bits_support", "bits_support_enumerated", "bits_values", "bits_per_value", "bits_per_token")
        values: dict[str, float | None] = dict.fromkeys(names)
        fitted, scored = self._tokens.tolist()
        if self._active is None or self._sizes is None or not fitted or not scored:
            return values
        support = _support_bits(self._active.double(), fitted, scored)
        n_active = float(self._active[SCORE].sum())
        of_values = FLOAT_BITS * n_active
        if self._levels is not None:
            of_values = _level_bits(self._levels)
        values["bits_support"] = support / scored
        values["bits_support_enumerated"] = _enumerated_bits(self._sizes) / scored
        values["bits_values"] = of_values / scored
        values["bits_per_value"] = ratio(of_values, n_active)
        values["bits_per_token"] = (support + of_values) / scored
        return values


def _added(a_2FL: Tensor, b_2FL: Tensor) -> Tensor:
    """Counts of levels, of which the two may have different numbers."""
    width = max(a_2FL.shape[2], b_2FL.shape[2])
    wide = [torch.nn.functional.pad(counts, (0, width - counts.shape[2])) for counts in (a_2FL, b_2FL)]
    return wide[0] + wide[1]


def _support_bits(active_2F: Tensor, fitted: int, scored: int) -> float:
    """Bits of all scored tokens, latent by latent."""
    p_F = (active_2F[FIT] + 0.5) / (fitted + 1)
    on_F = active_2F[SCORE]
    return -float((on_F * p_F.log2() + (scored - on_F) * (1 - p_F).log2()).sum())


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


def _level_bits(levels_2FL: Tensor) -> float:
    """Bits of the values of all scored entries; level 0 is no entry's."""
    fit_FL, score_FL = levels_2FL[FIT].double(), levels_2FL[SCORE].double()
    pooled_L = fit_FL.sum(0)
    pooled_L = (pooled_L + 1 / SYMBOLS) / (pooled_L.sum() + 1)
    q_FL = (fit_FL + POOLED_WEIGHT * pooled_L) / (fit_FL.sum(1, keepdim=True) + POOLED_WEIGHT)
    return -float((score_FL * q_FL.log2()).sum())
