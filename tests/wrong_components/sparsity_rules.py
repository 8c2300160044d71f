"""Wrong sparsity rules, each made from the kit's right ones."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qsae_core import ComponentSpec
from qsae_core.conformance.reference_parts import L1, PlainConfig, TopK, TopKConfig
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.dense import Kept
from qsae_core.kernels import partners


class OneTooMany(TopK):
    """Keeps k + 1 latents."""

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        ranking = latents_BF if importance_F is None else latents_BF * importance_F
        k = min(int(self.fixed_k or 0) + 1, self.n_latents)
        indices = ranking.topk(k, dim=1).indices
        return SparseCodes.from_top_k(indices, latents_BF.gather(1, indices), self.n_latents)


class AboveBound(L1):
    """Declares a bound that it does not keep."""

    def max_l0(self) -> int | None:
        return 20


class RepeatsLatents(TopK):
    """Pads rows without an active latent with latent 0, k times."""

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        codes = super().select(latents_BF, importance_F)
        silent = (latents_BF == 0).all(dim=1)
        return replace(codes, indices=codes.indices.masked_fill(silent[codes.rows], 0))


class FirstOnes(TopK):
    """Keeps the first k latents instead of the largest."""

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        indices = torch.arange(int(self.fixed_k or 0)).repeat(len(latents_BF), 1)
        return SparseCodes.from_top_k(indices, latents_BF.gather(1, indices), self.n_latents)


class IgnoresImportance(TopK):
    """Ranks by the latent alone."""

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        return super().select(latents_BF)


class FailsAboveF(TopK):
    """Fails in the middle of a selection when k exceeds F, without a word to the user."""

    def __init__(self, config: TopKConfig, n_latents: int) -> None:
        super().__init__(TopKConfig(k=1), n_latents)
        self.fixed_k = config.k


class CountsNothing(L1):
    """Says that an option counts its latents that it does not have."""

    counts = "k"


class SharesBatch(L1):
    """Keeps the largest latents of the batch, in evaluation mode too."""

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        n = min(4 * len(latents_BF), latents_BF.numel())
        least = latents_BF.flatten().topk(n).values[-1:] if n else latents_BF.new_zeros(1)
        return super().select(latents_BF * (latents_BF >= least))

    def kept(self) -> None:
        return None


class SumOverTokens(L1):
    """A penalty that grows with the batch."""

    def penalty(self, codes: SparseCodes, atom_norms_F: Tensor) -> Tensor:
        return super().penalty(codes, atom_norms_F) * codes.batch_size


class PenaltyPerToken(L1):
    """A penalty that is no scalar."""

    def penalty(self, codes: SparseCodes, atom_norms_F: Tensor) -> Tensor:
        return super().penalty(codes, atom_norms_F).expand(codes.batch_size)


class Undetermined(L1):
    """Drops latents in training by a generator that no seed reaches."""

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        if self.training:
            generator = torch.Generator().manual_seed(random.SystemRandom().randrange(2**40))
            latents_BF = latents_BF * (torch.rand(latents_BF.shape, generator=generator) < 0.5)
        return super().select(latents_BF)


class Thresholded(L1):
    """Keeps what exceeds a threshold; the right way."""

    def __init__(self, config: Any, n_latents: int) -> None:
        super().__init__(config, n_latents)
        self.register_buffer("threshold", torch.tensor(0.1))

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        if self.training and latents_BF.numel():
            self.threshold.mul_(0.9).add_(0.1 * latents_BF.mean())
        return super().select(latents_BF * (latents_BF > self.threshold))

    def kept(self) -> None:
        return None


class MovesInEvaluation(Thresholded):
    """Moves its threshold in evaluation mode, too."""

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        self.threshold.mul_(0.999)
        return super().select(latents_BF)


class ForgetsThreshold(Thresholded):
    """Keeps its threshold outside the state."""

    def __init__(self, config: Any, n_latents: int) -> None:
        super().__init__(config, n_latents)
        del self.threshold
        self.register_buffer("threshold", torch.tensor(0.1), persistent=False)


class HidesThreshold(Thresholded):
    """Says that everything stays."""

    def kept(self) -> Kept:  # type: ignore[override]
        return Kept()


class PricesItsOwnHalf(L1):
    """Says that it serves a part of the latents, and counts those that it sees."""

    splits = True


class PricesAll(L1):
    """Serves a part of the latents."""

    splits = True

    def penalty(self, codes: SparseCodes, atom_norms_F: Tensor) -> Tensor:
        price = super().penalty(codes, atom_norms_F)
        return partners().total(price)


def rule(cls: type[TopK] | type[L1]) -> ComponentSpec:
    config = TopKConfig if issubclass(cls, TopK) else PlainConfig
    return ComponentSpec("sparsity", cls.__name__.lower(), config, f"{__name__}:{cls.__name__}")


RIGHT = [rule(Thresholded), rule(PricesAll)]
WRONG = [
    (rule(OneTooMany), "declared-l0"),
    (rule(AboveBound), "declared-l0"),
    (rule(CountsNothing), "declared-l0"),
    (rule(RepeatsLatents), "well-formed"),
    (rule(FirstOnes), "largest"),
    (rule(IgnoresImportance), "largest"),
    (rule(FailsAboveF), "k-at-least-f"),
    (rule(SharesBatch), "chunks"),
    (rule(SumOverTokens), "penalty"),
    (rule(PenaltyPerToken), "penalty"),
    (rule(Undetermined), "deterministic"),
    (rule(MovesInEvaluation), "eval-keeps-state"),
    (rule(ForgetsThreshold), "state"),
    (rule(HidesThreshold), "kept"),
    (rule(PricesItsOwnHalf), "parts"),
]
