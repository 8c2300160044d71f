"""Running evaluations on a trained coder; used at the end of training and by ``qsae evaluate``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch

from qsae_core.contracts.coder import AtomErrors, SparseCoder
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.evaluation import Evaluation, EvaluationContext, Result
from qsae_core.contracts.metric import Metric, measure, observe
from qsae_core.evaluation import of_all_parts
from qsae_core.evaluation.guarded import Guarded
from qsae_core.evaluation.of_layers import WHOLE, OfLayer, all_coders, contexts
from qsae_core.evaluation.passes import run_passes, worked
from qsae_core.evaluation.watch import Watch
from qsae_core.kernels import partners

NO_MODEL = "the data source has no language model behind its vectors"


class Outcome(NamedTuple):
    """What came of one evaluation."""

    evaluation: Evaluation
    result: Result | None
    """None where the data could not support it."""
    unavailable: str | None = None
    """Why it could not, or why values are missing; where the evaluation failed, what came out of it."""
    failed: bool = False
    """Whether it should have come to its end, and did not."""
    n_documents: int | None = None
    """How many documents it has seen something of; None where that is not known."""

    def entry(self) -> dict[str, Any]:
        """Its scalars by name; where values are missing ``unavailable``, and ``failed`` where that is a
        failure: what ``metrics.json`` holds."""
        entry: dict[str, Any] = {} if self.result is None else dict(self.result.values)
        if self.unavailable is not None:
            entry["unavailable"] = self.unavailable
        return {**entry, "failed": True} if self.failed else entry


def n_documents(outcomes: Mapping[str, Outcome]) -> int | None:
    """How many documents all of them have seen something of; None where that is not known."""
    return max((o.n_documents for o in outcomes.values() if o.n_documents is not None), default=None)


def entries(outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, Any]]:
    """Evaluation name -> its scalars, or why it could not run."""
    return {name: outcome.entry() for name, outcome in outcomes.items()}


@torch.no_grad()
def evaluate(
    coder: SparseCoder,
    data: DataSource,
    evaluations: Mapping[str, Evaluation],
    make_metrics: Callable[[], list[Metric]],
    *,
    n_tokens: int,
    batch_size: int,
    atom_errors: AtomErrors | None = None,
    twin: SparseCoder | None = None,
    watch: Watch | None = None,
) -> dict[str, dict[str, Outcome]]:
    """``WHOLE``, and of a set of coders each layer -> evaluation name -> what came of it; all from one pass
    over the held-out data.

    Coders are put into evaluation mode and left as they were in every other respect.

    Args:
        atom_errors: what quantization does to its atoms, where the caller knows it of a coder that holds no
            float masters; None: what the coder itself says.
        twin: its full-precision twin, for evaluations that observe it.
        watch: is told how far it is.
    """
    coders = [*all_coders(coder), *all_coders(twin)]
    modes = [c.training for c in coders]
    for c in coders:
        c.eval()
    errors = coder.atom_errors() if atom_errors is None else atom_errors
    observed = {what for e in evaluations.values() for what in (*e.observes, *e.may_observe)}
    seen_twin = twin if "twin" in observed else None
    device = str(coder.device)
    context = EvaluationContext(coder, data, make_metrics, n_tokens, batch_size, device, errors, seen_twin)
    try:
        return _outcomes(context, evaluations, watch or Watch())
    finally:
        for c, mode in zip(coders, modes, strict=True):
            c.train(mode)


Asked = dict[tuple[str, str], str | None]
"""Layer or ``WHOLE``, and evaluation -> why it cannot run; None where it can."""


def _outcomes(
    whole: EvaluationContext, evaluations: Mapping[str, Evaluation], watch: Watch
) -> dict[str, dict[str, Outcome]]:
    of_layers = contexts(whole)
    names = [WHOLE, *(name for name in of_layers if name != WHOLE)]
    reasons: Asked = {
        (layer, name): refusal(evaluation, of_layers[layer])
        for layer in names
        for name, evaluation in evaluations.items()
    }
    started = {
        (layer, name): _started(evaluations[name], of_layers[layer], names.index(layer) - 1)
        for (layer, name), reason in reasons.items()
        if reason is None
    }
    passed = run_passes(whole, started, watch, operator.itemgetter(1))
    finished = cast("dict[tuple[str, str], Guarded]", passed)
    found: dict[str, dict[str, Outcome]] = {layer: {} for layer in names}
    for (layer, name), reason in reasons.items():
        accumulator = finished.get((layer, name))
        if accumulator is None:
            found[layer][name] = Outcome(evaluations[name], None, reason)
        else:
            called = name if layer == WHOLE else f"{name}, layer {layer}"
            result = worked(accumulator.result, watch, called)
            found[layer][name] = _outcome(evaluations[name], accumulator, result)
    return found


def _outcome(evaluation: Evaluation, accumulator: Guarded, result: Result) -> Outcome:
    if accumulator.fault is not None:
        return Outcome(evaluation, None, accumulator.fault, failed=True)
    return Outcome(evaluation, result, result.reason, result.failed, accumulator.n_documents)


def _started(evaluation: Evaluation, context: EvaluationContext, layer: int) -> Guarded:
    """What knows nothing yet, of the whole (-1) or of a layer's coder."""
    if layer < 0:
        return Guarded(lambda: evaluation.start(context))
    return Guarded(lambda: OfLayer(evaluation.start(context), layer))


def refusal(evaluation: Evaluation, context: EvaluationContext) -> str | None:
    """Why an evaluation cannot run there: something that it observes is missing, or its own reason."""
    if "tokens" in evaluation.observes and context.data.language_model() is None:
        return NO_MODEL
    if "twin" in evaluation.observes and context.twin is None:
        return "there is no full-precision twin beside the coder"
    return evaluation.unavailable(context)


@torch.no_grad()
def measure_held_out(
    coder: SparseCoder, batches: Iterable[Batch], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """The metrics' values over held-out batches, during training; the coder's mode is restored. Partners
    measure at the same time, each with its latents, and find the same."""
    was_training = coder.training
    coder.eval()
    try:
        errors = coder.atom_errors()
        here = (batch.to(coder.device) for batch in batches)
        if partners().world == 1:
            return measure(metrics, (observe(coder, batch, errors) for batch in here))
        errors = of_all_parts.atom_errors(errors)
        return measure(metrics, (of_all_parts.observe(coder, batch, errors) for batch in here))
    finally:
        coder.train(was_training)
