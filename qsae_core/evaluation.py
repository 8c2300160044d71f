"""Running evaluations on a trained coder; used at the end of training and by ``qsae evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from qsae_core.coder import SparseCoder, observe
from qsae_core.data import Batch, DataSource
from qsae_core.measures import Evaluation, EvaluationContext, Metric, measure


@torch.no_grad()
def evaluate(
    coder: SparseCoder,
    data: DataSource,
    evaluations: Mapping[str, Evaluation],
    make_metrics: Callable[[], list[Metric]],
    *,
    n_tokens: int,
    batch_size: int,
) -> dict[str, dict[str, Any]]:
    """Evaluation name -> its values, or ``{"unavailable": reason}`` where the data cannot support it.

    The coder is put into evaluation mode and left as it was in every other respect.
    """
    was_training = coder.training
    coder.eval()
    results: dict[str, dict[str, Any]] = {}
    try:
        for name, evaluation in evaluations.items():
            context = EvaluationContext(coder, data, make_metrics(), n_tokens, batch_size, str(coder.device))
            reason = evaluation.unavailable(context)
            results[name] = {"unavailable": reason} if reason else dict(evaluation.run(context))
    finally:
        coder.train(was_training)
    return results


@torch.no_grad()
def measure_held_out(
    coder: SparseCoder, batches: Sequence[Batch], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """The metrics' values over held-out batches, during training; the coder's mode is restored."""
    was_training = coder.training
    coder.eval()
    try:
        return measure(metrics, (observe(coder, batch.to(coder.device)) for batch in batches))
    finally:
        coder.train(was_training)
