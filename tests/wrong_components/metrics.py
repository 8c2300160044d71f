"""Wrong metrics, each made from the kit's right one."""

from __future__ import annotations

import torch

from qsae_core import ComponentSpec
from qsae_core.conformance.reference_parts import PlainConfig
from qsae_core.contracts.metric import Observation

from .options import RightMetric

Values = dict[str, float | None]


class MeanOfBatchMeans(RightMetric):
    """Every batch counts the same, however many tokens it has."""

    def update(self, observation: Observation) -> None:
        error = (observation.target.double() - observation.reconstruction.double()).square()
        self.error += error.sum(1).mean().item() if len(error) else 0.0
        self.tokens += 1


class Float32Sums(RightMetric):
    """Adds up in float32."""

    def update(self, observation: Observation) -> None:
        error = (observation.target - observation.reconstruction).square().sum()
        self.error = (torch.tensor(self.error, dtype=torch.float32) + error).item()
        self.tokens += len(observation.target)


class CountsPadding(RightMetric):
    """Takes every entry of the codes for an active latent."""

    optimum = {}  # noqa: RUF012

    def update(self, observation: Observation) -> None:
        self.error += observation.codes.indices.numel()
        self.tokens += len(observation.target)


class DeclaredPerBatch(MeanOfBatchMeans):
    """The same, declared."""

    batch_dependent = frozenset({"mse"})


class WrongOptimum(RightMetric):
    """Declares that the best error is 1."""

    optimum = {"mse": 1.0}  # noqa: RUF012


class NaNWithoutTokens(RightMetric):
    """Divides by zero tokens."""

    def compute(self) -> Values:
        return {"mse": self.error / self.tokens if self.tokens else float("nan")}


class MinusOneWithoutTokens(RightMetric):
    """Reports -1 for what is not defined."""

    def compute(self) -> Values:
        return {"mse": self.error / self.tokens if self.tokens else -1.0}


class ForgetsToReset(RightMetric):
    """Keeps the errors of before."""

    def __init__(self, config: PlainConfig) -> None:
        self.error = 0.0
        super().__init__(config)

    def reset(self) -> None:
        self.tokens = 0
        self.error = max(self.error, 0.0)


class GivesTensors(RightMetric):
    """Values that JSON cannot hold."""

    def compute(self) -> Values:
        values = super().compute()
        return {n: v if v is None else torch.tensor(v, dtype=torch.float64) for n, v in values.items()}  # type: ignore[misc]


class ChangesReconstruction(RightMetric):
    """Subtracts in place."""

    def update(self, observation: Observation) -> None:
        super().update(observation)
        observation.reconstruction.sub_(observation.target)


class Undetermined(RightMetric):
    """Depends on the global seed."""

    def compute(self) -> Values:
        values = super().compute()
        return {n: v if v is None else v + torch.initial_seed() for n, v in values.items()}


class ForgetsTokensOfOthers(RightMetric):
    """Merges errors, and not how many tokens they are of."""

    def merge(self, other: RightMetric) -> None:
        self.error += other.error


def metric(cls: type[RightMetric]) -> ComponentSpec:
    return ComponentSpec("metric", cls.__name__.lower(), PlainConfig, f"{__name__}:{cls.__name__}")


RIGHT = [metric(DeclaredPerBatch)]
WRONG = [
    (metric(MeanOfBatchMeans), "batch-size"),
    (metric(Float32Sums), "batch-size"),
    (metric(ForgetsTokensOfOthers), "merge"),
    (metric(CountsPadding), "padding"),
    (metric(WrongOptimum), "optimum"),
    (metric(NaNWithoutTokens), "undefined"),
    (metric(MinusOneWithoutTokens), "empty-stream"),
    (metric(ForgetsToReset), "reset"),
    (metric(GivesTensors), "values"),
    (metric(ChangesReconstruction), "leaves-input"),
    (metric(Undetermined), "deterministic"),
]
