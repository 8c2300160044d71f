"""Rules for evaluations: they run on a small coder and small data, with and without a language model."""

from __future__ import annotations

import math
import pathlib
import tempfile
from collections.abc import Iterator, Mapping

import torch

from qsae_core.coder_options import CoderConfig
from qsae_core.coders.coder_set import CoderSet
from qsae_core.coders.linear import LinearCoder
from qsae_core.component import ComponentConfig
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
from qsae_core.contracts.coder import CoderShape, LossOutput, SparseCoder
from qsae_core.contracts.data import Batch
from qsae_core.contracts.evaluation import Evaluation, EvaluationContext, Result
from qsae_core.contracts.metric import Metric, Observation
from qsae_core.errors import QsaeError
from qsae_core.evaluation.evaluate import refusal
from qsae_core.evaluation.passes import observations, run_passes
from qsae_core.evaluation.stored import check_result, load_result, save_result

RULES = Rules()
SHAPE = CoderShape(16, 16)
N_TOKENS = 96
Values = Mapping[str, float | None]


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

    def merge(self, other: ReferenceMetric) -> None:
        """Add the sums of another one."""
        self.error += other.error
        self.tokens += other.tokens

    def compute(self) -> dict[str, float | None]:
        """``mse``."""
        return {"mse": self.error / self.tokens if self.tokens else None}

    def reset(self) -> None:
        """Forget everything."""
        self.error, self.tokens = 0.0, 0


def contexts(batch_size: int = 32) -> Iterator[tuple[str, EvaluationContext]]:
    """(description, context): data with a language model, without one, and of two layers with a coder for
    each; all with a twin."""
    for what, data in (
        ("data with a language model", ToyData(SHAPE, model=ToyLanguageModel(SHAPE.d_in))),
        ("data without one", ToyData(SHAPE)),
        ("a coder for each of two layers", ToyData(SHAPE._replace(layers_in=2, layers_out=2))),
    ):
        coder, twin = _coder(data), _coder(data)

        def make_metrics() -> list[Metric]:
            return [ReferenceMetric(PlainConfig())]

        yield what, EvaluationContext(coder, data, make_metrics, N_TOKENS, batch_size, "cpu", twin=twin)


def _coder(data: ToyData) -> SparseCoder:
    sample = data.next_batch(256)
    coders: dict[str, ReferenceCoder] = {}
    with torch.random.fork_rng(devices=[]):
        set_seed(0)
        for i, name in enumerate(data.layer_names):
            coders[name] = ReferenceCoder(CoderConfig(n_latents=32), SHAPE, plain_parts(k=4))
            coders[name].initialize(sample if data.layers_in == 1 else sample.layer(i))
    coder: SparseCoder = CoderSet(coders) if len(coders) > 1 else next(iter(coders.values()))
    return coder.eval()


def outcome(evaluation: Evaluation, context: EvaluationContext) -> Result:
    """What it finds, as core runs it."""
    return run_passes(context, {"it": evaluation.start(context)})["it"].result()


def ran(subject: Subject, case: Case, context: EvaluationContext) -> Result | None:
    """The result, or None where the evaluation is not available or refuses ('available' asks which)."""
    evaluation: Evaluation = subject.build(case)
    if refusal(evaluation, context) is not None:
        return None
    try:
        return outcome(evaluation, context)
    except QsaeError:
        return None


def results(subject: Subject, case: Case, batch_size: int = 32) -> list[tuple[str, Result]]:
    """Results on every data that supports the evaluation.

    Raises:
        NotApplicable: if none does.
    """
    found = []
    for what, context in contexts(batch_size):
        result = ran(subject, case, context)
        if result is not None:
            found.append((what, result))
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
        reason = refusal(evaluation, context)
        if reason is not None:
            expect(isinstance(reason, str) and reason.strip() != "", f"unavailable gives {reason!r}.")
            continue
        try:
            outcome(evaluation, context)
        except QsaeError as error:
            raise CheckFailure(f"on {what} it calls itself available, and then refuses: {error}.") from error


@RULES.each_case("values", "values are finite Python floats or None by name; what is not defined is None.")
def _values(subject: Subject, case: Case) -> None:
    for what, result in results(subject, case):
        found = len(result.values) + len(result.per_latent) + len(result.tables)
        expect(found > 0, f"on {what} it found nothing.")
        for name, value in _scalars(result):
            plain = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
            expect(plain, f"on {what}, {name} is a {type(value).__name__}, neither a float nor None.")
            expect(value is None or math.isfinite(value), f"on {what}, {name} is {value}.")


@RULES.each_case(
    "stored", "columns have a value per latent, tables fit their columns, and both can be stored."
)
def _stored(subject: Subject, case: Case) -> None:
    for what, result in results(subject, case):
        try:
            check_result(result, what)
        except QsaeError as error:
            raise CheckFailure(f"{error}.") from error
        n = next(context.coder.n_latents for other, context in contexts() if other == what)
        for name, column in result.per_latent.items():
            expect(len(column) == n, f"on {what}, {name} has {len(column)} values for {n} latents.")
        if any(value is not None and not math.isfinite(value) for _, value in _scalars(result)):
            continue  # 'values' reports it
        with tempfile.TemporaryDirectory() as folder:
            save_result(pathlib.Path(folder) / "it", result, {})
            read, _ = load_result(pathlib.Path(folder) / "it")
        _expect_close([(what, read)], [(what, result)], 1e-6, "stored and read")


@RULES.each_case(
    "merge", "two accumulators that saw a part of the data each merge into what one of both finds."
)
def _merge(subject: Subject, case: Case) -> None:
    for what, context in contexts():
        evaluation: Evaluation = subject.build(case)
        if ran(subject, case, context) is None:
            continue
        whole, halves = evaluation.start(context), [evaluation.start(context) for _ in range(2)]
        while True:
            for number, seen in enumerate(observations(context, [1], with_twin=True)):
                whole.update(seen)
                halves[number > 0].update(seen)  # one batch, and all others
            halves[0].merge(halves[1])
            following = [accumulator.next_pass() for accumulator in (whole, halves[0], halves[0])]
            if following[0] is None:
                break
            whole, *halves = [accumulator for accumulator in following if accumulator is not None]
        _expect_close([(what, halves[0].result())], [(what, whole.result())], 1e-6, "merged")


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


def _scalars(result: Result) -> Iterator[tuple[str, float | None]]:
    """Every number of a result, under a name of its own."""
    yield from result.values.items()
    for key in ("chance", "baseline", "uncertainty"):
        yield from ((f"{key} of {name}", value) for name, value in getattr(result, key).items())
    for name, table in result.tables.items():
        for number, row in enumerate(table.rows):
            for column, cell in zip(table.columns, row, strict=False):  # 'stored' compares their lengths
                if not isinstance(cell, str):
                    yield f"{column} in row {number} of table {name}", cell


def _expect_close(
    actual: list[tuple[str, Result]], expected: list[tuple[str, Result]], tolerance: float, how: str
) -> None:
    for (what, result), (_, reference) in zip(actual, expected, strict=True):
        values, wanted = dict(_scalars(result)), dict(_scalars(reference))
        expect(values.keys() == wanted.keys(), f"{how} on {what}, the names differ.")
        for name, value in wanted.items():
            other = values[name]
            if value is None or other is None or math.isnan(value):  # 'values' reports NaN
                expect(str(value) == str(other), f"{how} on {what}, {name} is {other} against {value}.")
            else:
                close = abs(other - value) <= tolerance * max(abs(value), 1.0)
                expect(close, f"{how} on {what}, {name} is {other!r} against {value!r}.")
        for name, column in reference.per_latent.items():
            same = torch.allclose(
                result.per_latent[name].double(), column.double(), tolerance, tolerance, equal_nan=True
            )
            expect(same, f"{how} on {what}, the column {name} differs.")
