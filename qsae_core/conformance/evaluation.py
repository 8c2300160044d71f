"""Rules for evaluations: they run on a small coder and small data, with and without a language model."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from qsae_core.coders.linear import LinearCoder
from qsae_core.component import CoderConfig, ComponentConfig
from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.general import check_constructs
from qsae_core.conformance.reference_parts import PlainConfig, plain_parts
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.toy_data import ToyData
from qsae_core.conformance.toy_model import ToyLanguageModel
from qsae_core.conformance.verdicts import (
    CheckFailure,
    NotApplicable,
    copy_of_state,
    expect,
    expect_same_state,
    set_seed,
)
from qsae_core.contracts.coder import CoderShape, LossOutput
from qsae_core.contracts.data import Batch
from qsae_core.contracts.evaluation import Evaluation, EvaluationContext
from qsae_core.contracts.metric import Metric, Observation
from qsae_core.errors import QsaeError

RULES = Rules()
SHAPE = CoderShape(16, 16)
N_TOKENS = 96
Values = dict[str, float | None]


class ReferenceCoder(LinearCoder):
    """A TopK SAE of 32 latents."""

    def loss(self, batch: Batch) -> LossOutput:
        """Squared error alone."""
        W_enc, W_dec = self.W_enc.rows(), self.W_dec.rows()
        x = self.norm_in(batch.x)
        codes = self.encode_normalized(x, W_enc, W_dec)
        x_hat = self.decode_normalized(codes, W_dec)
        return LossOutput({"mse": (x - x_hat).square().sum(1).mean()}, codes, x, x_hat)


class ReferenceMetric(Metric):
    """Mean squared error."""

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        self.reset()

    def update(self, observation: Observation) -> None:
        """Add a batch."""
        error = observation.target.double() - observation.reconstruction.double()
        self.error += error.square().sum().item()
        self.tokens += len(error)

    def compute(self) -> Values:
        """``mse``."""
        return {"mse": self.error / self.tokens if self.tokens else None}

    def reset(self) -> None:
        """Forget everything."""
        self.error, self.tokens = 0.0, 0


def contexts(batch_size: int = 32) -> Iterator[tuple[str, EvaluationContext]]:
    """(description, context): data with a language model, and without one."""
    for what, model in (
        ("data with a language model", ToyLanguageModel(SHAPE.d_in)),
        ("data without one", None),
    ):
        data = ToyData(SHAPE, model=model)
        metrics: list[Metric] = [ReferenceMetric(PlainConfig())]
        yield what, EvaluationContext(_coder(data), data, metrics, N_TOKENS, batch_size, "cpu")


def _coder(data: ToyData) -> ReferenceCoder:
    parts = plain_parts(k=4)
    with torch.random.fork_rng(devices=[]):
        set_seed(0)
        coder = ReferenceCoder(CoderConfig(n_latents=32), SHAPE, parts)
        coder.initialize(data.next_batch(256))
    return coder.eval()


def ran(subject: Subject, case: Case, context: EvaluationContext) -> Values | None:
    """The values, or None where the evaluation is not available or refuses ('available' asks which)."""
    evaluation: Evaluation = subject.build(case)
    if evaluation.unavailable(context) is not None:
        return None
    try:
        return evaluation.run(context)
    except QsaeError:
        return None


def results(subject: Subject, case: Case, batch_size: int = 32) -> list[tuple[str, Values]]:
    """Values on every data that supports the evaluation.

    Raises:
        NotApplicable: if none does.
    """
    found = []
    for what, context in contexts(batch_size):
        values = ran(subject, case, context)
        if values is not None:
            found.append((what, values))
    if not found:
        raise NotApplicable("the evaluation is not available on the kit's small data")
    return found


@RULES.once("constructs", "the defaults and the sample configurations construct.")
def _constructs(subject: Subject) -> None:
    check_constructs(subject, subject.construct)


@RULES.each_case("available", "unavailable says None or why; what it calls available runs.")
def _available(subject: Subject, case: Case) -> None:
    for what, context in contexts():
        evaluation: Evaluation = subject.build(case)
        reason = evaluation.unavailable(context)
        if reason is not None:
            expect(isinstance(reason, str) and reason.strip() != "", f"unavailable gives {reason!r}.")
            continue
        try:
            evaluation.run(context)
        except QsaeError as error:
            raise CheckFailure(f"on {what} it calls itself available, and then refuses: {error}.") from error


@RULES.each_case("values", "run gives finite Python floats or None by name; what is not defined is None.")
def _values(subject: Subject, case: Case) -> None:
    for what, values in results(subject, case):
        expect(len(values) > 0, f"on {what} it returned nothing.")
        for name, value in values.items():
            plain = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
            expect(plain, f"on {what}, {name} is a {type(value).__name__}, neither a float nor None.")
            expect(value is None or math.isfinite(value), f"on {what}, {name} is {value}.")


@RULES.each_case("keeps-coder", "an evaluation leaves the coder as it was: state, mode, gradients.")
def _keeps_coder(subject: Subject, case: Case) -> None:
    for what, context in contexts():
        before = copy_of_state(context.coder)
        ran(subject, case, context)
        expect_same_state(copy_of_state(context.coder), before, f"the coder's state after a run on {what}")
        expect(not context.coder.training, f"after a run on {what} the coder is in training mode.")
        left = [n for n, p in context.coder.named_parameters() if p.grad is not None]
        expect(not left, f"after a run on {what} there are gradients at {', '.join(left)}.")


@RULES.each_case("deterministic", "the same coder and data give the same values, whatever the global seed.")
def _deterministic(subject: Subject, case: Case) -> None:
    set_seed(1)
    first = results(subject, case)
    set_seed(2)
    _expect_close(results(subject, case), first, 1e-9, "run twice")


@RULES.each_case("batch-size", "values do not depend on the batch size (but for rounding).")
def _batch_size(subject: Subject, case: Case) -> None:
    _expect_close(results(subject, case, 7), results(subject, case), 1e-4, "in batches of 7 against 32")


def _expect_close(
    actual: list[tuple[str, Values]], expected: list[tuple[str, Values]], tolerance: float, how: str
) -> None:
    for (what, values), (_, wanted) in zip(actual, expected, strict=True):
        expect(values.keys() == wanted.keys(), f"{how} on {what}, the names differ.")
        for name, value in wanted.items():
            other = values[name]
            if value is None or other is None or math.isnan(value):  # 'values' reports NaN
                expect(str(value) == str(other), f"{how} on {what}, {name} is {other} against {value}.")
            else:
                close = abs(other - value) <= tolerance * max(abs(value), 1.0)
                expect(close, f"{how} on {what}, {name} is {other!r} against {value!r}.")
