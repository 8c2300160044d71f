"""Wrong evaluations, each made from a right one: the squared error per token, and of each latent."""

from __future__ import annotations

import torch

from qsae_core import ComponentSpec
from qsae_core.conformance.reference_parts import PlainConfig
from qsae_core.contracts.evaluation import Accumulator, Evaluation, EvaluationContext, Result, Table
from qsae_core.contracts.metric import Observation
from qsae_core.errors import DataError


class Errors(Accumulator):
    """Squared error per token; firings per latent; a table of one row."""

    def __init__(self, context: EvaluationContext) -> None:
        self.context = context
        self.error, self.tokens = 0.0, 0
        self.fired_F = torch.zeros(context.coder.n_latents)

    def update(self, observation: Observation) -> None:
        error = observation.target.double() - observation.reconstruction.double()
        self.error += error.square().sum().item()
        self.tokens += len(error)
        self.fired_F += observation.codes.fired()

    def merge(self, other: Errors) -> None:
        self.error += other.error
        self.tokens += other.tokens
        self.fired_F += other.fired_F

    def result(self) -> Result:
        mse = self.error / self.tokens if self.tokens else None
        return Result(
            values={"mse": mse, "undefined": None},
            baseline={"mse": 1.0},
            per_latent={"fired": self.fired_F},
            tables={"tokens": Table(("what", "tokens"), [("held out", self.tokens)])},
        )


class RightEvaluation(Evaluation):
    """Squared error per token."""

    accumulator: type[Errors] = Errors

    def start(self, context: EvaluationContext) -> Accumulator:
        return self.accumulator(context)


class TwoPasses(RightEvaluation):
    """The squared error, after a pass that only counts."""

    class accumulator(Errors):  # noqa: N801 (takes the place of the attribute)
        def next_pass(self) -> Accumulator | None:
            return Errors(self.context)


class NeedsModel(RightEvaluation):
    """Not available without a language model, and says so."""

    observes = frozenset({"tokens"})

    class accumulator(Errors):  # noqa: N801
        def update(self, observation: Observation) -> None:
            assert observation.tokens is not None
            super().update(observation)


class RefusesLate(RightEvaluation):
    """Refuses data without a language model only when it starts."""

    def start(self, context: EvaluationContext) -> Accumulator:
        if context.data.language_model() is None:
            raise DataError("there is no language model")
        return super().start(context)


class FailsToConstruct(RightEvaluation):
    """Cannot be made."""

    def __init__(self, config: PlainConfig) -> None:
        raise RuntimeError("no")


class GivesNaN(RightEvaluation):
    """NaN for what is not defined."""

    class accumulator(Errors):  # noqa: N801
        def result(self) -> Result:
            return Result({"undefined": float("nan")})


class ColumnOfTokens(RightEvaluation):
    """A column with a value per token."""

    class accumulator(Errors):  # noqa: N801
        def result(self) -> Result:
            return Result(per_latent={"fired": torch.zeros(self.tokens)})


class RaggedTable(RightEvaluation):
    """A row without a cell for one of the columns."""

    class accumulator(Errors):  # noqa: N801
        def result(self) -> Result:
            return Result(tables={"tokens": Table(("what", "tokens"), [("held out",)])})


class ChanceOfNothing(RightEvaluation):
    """A chance level of a value that there is not."""

    class accumulator(Errors):  # noqa: N801
        def result(self) -> Result:
            return Result({"mse": 0.0}, chance={"fvu": 0.0})


class LeavesTrainingMode(RightEvaluation):
    """Leaves the coder in training mode."""

    class accumulator(Errors):  # noqa: N801
        def result(self) -> Result:
            self.context.coder.train()
            return super().result()


class LeavesGradients(RightEvaluation):
    """Leaves gradients on the coder's parameters."""

    class accumulator(Errors):  # noqa: N801
        def update(self, observation: Observation) -> None:
            with torch.enable_grad():
                torch.autograd.backward(self.context.coder(observation.target).sum())
            super().update(observation)


class Undetermined(RightEvaluation):
    """Depends on the global seed."""

    class accumulator(Errors):  # noqa: N801
        def result(self) -> Result:
            return Result({"seed": float(torch.initial_seed() % 100)})


class CountsBatches(RightEvaluation):
    """Counts batches for tokens."""

    class accumulator(Errors):  # noqa: N801
        def update(self, observation: Observation) -> None:
            super().update(observation)
            self.tokens += 1 - len(observation.target)


class MergesErrorsAlone(RightEvaluation):
    """Merges errors, and not how many tokens they are of."""

    class accumulator(Errors):  # noqa: N801
        def merge(self, other: Errors) -> None:
            self.error += other.error


def evaluation(cls: type[Evaluation]) -> ComponentSpec:
    return ComponentSpec("evaluation", cls.__name__.lower(), PlainConfig, f"{__name__}:{cls.__name__}")


RIGHT = [evaluation(RightEvaluation), evaluation(NeedsModel), evaluation(TwoPasses)]
WRONG = [
    (evaluation(RefusesLate), "available"),
    (evaluation(FailsToConstruct), "constructs"),
    (evaluation(GivesNaN), "values"),
    (evaluation(ColumnOfTokens), "stored"),
    (evaluation(RaggedTable), "stored"),
    (evaluation(ChanceOfNothing), "stored"),
    (evaluation(LeavesTrainingMode), "keeps-coder"),
    (evaluation(LeavesGradients), "keeps-coder"),
    (evaluation(Undetermined), "deterministic"),
    (evaluation(CountsBatches), "batch-size"),
    (evaluation(MergesErrorsAlone), "merge"),
]
