"""Wrong evaluations, each made from a right one: the share of variance that is left."""

from __future__ import annotations

import torch

from qsae_core import ComponentSpec
from qsae_core.conformance.reference_parts import PlainConfig
from qsae_core.contracts.evaluation import Evaluation, EvaluationContext
from qsae_core.errors import DataError

Values = dict[str, float | None]


class RightEvaluation(Evaluation):
    """Squared error per token."""

    def run(self, context: EvaluationContext) -> Values:
        error, tokens = 0.0, 0
        for seen in context.observations():
            error += (seen.target.double() - seen.reconstruction.double()).square().sum().item()
            tokens += len(seen.target)
        return {"mse": error / tokens if tokens else None, "undefined": None}


class NeedsModel(RightEvaluation):
    """Not available without a language model, and says so."""

    def unavailable(self, context: EvaluationContext) -> str | None:
        return None if context.data.language_model() else "it needs a language model"

    def run(self, context: EvaluationContext) -> Values:
        assert context.data.language_model() is not None
        return super().run(context)


class RefusesLate(RightEvaluation):
    """Refuses data without a language model only when it runs."""

    def run(self, context: EvaluationContext) -> Values:
        if context.data.language_model() is None:
            raise DataError("there is no language model")
        return super().run(context)


class FailsToConstruct(RightEvaluation):
    """Cannot be made."""

    def __init__(self, config: PlainConfig) -> None:
        raise RuntimeError("no")


class GivesNaN(RightEvaluation):
    """NaN for what is not defined."""

    def run(self, context: EvaluationContext) -> Values:
        return super().run(context) | {"undefined": float("nan")}


class LeavesTrainingMode(RightEvaluation):
    """Leaves the coder in training mode."""

    def run(self, context: EvaluationContext) -> Values:
        values = super().run(context)
        context.coder.train()
        return values


class LeavesGradients(RightEvaluation):
    """Leaves gradients on the coder's parameters."""

    def run(self, context: EvaluationContext) -> Values:
        for batch in context.data.held_out(8, 8):
            torch.autograd.backward(context.coder(batch.x).sum())
        return super().run(context)


class Undetermined(RightEvaluation):
    """Depends on the global seed."""

    def run(self, context: EvaluationContext) -> Values:
        return super().run(context) | {"undefined": float(torch.initial_seed() % 100)}


class CountsBatches(RightEvaluation):
    """Divides by batches."""

    def run(self, context: EvaluationContext) -> Values:
        return super().run(context) | {"undefined": float(len(list(context.observations())))}


def evaluation(cls: type[Evaluation]) -> ComponentSpec:
    return ComponentSpec("evaluation", cls.__name__.lower(), PlainConfig, f"{__name__}:{cls.__name__}")


RIGHT = [evaluation(RightEvaluation), evaluation(NeedsModel)]
WRONG = [
    (evaluation(RefusesLate), "available"),
    (evaluation(FailsToConstruct), "constructs"),
    (evaluation(GivesNaN), "values"),
    (evaluation(LeavesTrainingMode), "keeps-coder"),
    (evaluation(LeavesGradients), "keeps-coder"),
    (evaluation(Undetermined), "deterministic"),
    (evaluation(CountsBatches), "batch-size"),
]
