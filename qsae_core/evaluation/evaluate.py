"""Running evaluations on a trained coder; used at the end of training and by ``qsae evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.contracts.coder import AtomErrors
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.evaluation import Evaluation, EvaluationContext
from qsae_core.contracts.metric import Metric, measure, observe


@torch.no_grad()
def evaluate(
    coder: MatrixCoder,
    data: DataSource,
    evaluations: Mapping[str, Evaluation],
    make_metrics: Callable[[], list[Metric]],
    *,
    n_tokens: int,
    batch_size: int,
    atom_errors: AtomErrors | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluation name -> its values, or ``{"unavailable": reason}`` where the data cannot support it.

    The coder is put into evaluation mode and left as it was in every other respect.

    Args:
        atom_errors: what quantization does to its atoms, where the caller knows it of a coder that holds no
            float masters; None: what the coder itself says.
    """
    was_training = coder.training
    coder.eval()
    errors = coder.atom_errors() if atom_errors is None else atom_errors
    results: dict[str, dict[str, Any]] = {}
    try:
        for name, evaluation in evaluations.items():
            device = str(coder.device)
            context = EvaluationContext(coder, data, make_metrics(), n_tokens, batch_size, device, errors)
            reason = evaluation.unavailable(context)
            results[name] = {"unavailable": reason} if reason else dict(evaluation.run(context))
    finally:
        coder.train(was_training)
    return results


@torch.no_grad()
def measure_held_out(
    coder: MatrixCoder, batches: Sequence[Batch], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """The metrics' values over held-out batches, during training; the coder's mode is restored."""
    was_training = coder.training
    coder.eval()
    try:
        errors = coder.atom_errors()
        return measure(metrics, (observe(coder, batch.to(coder.device), errors) for batch in batches))
    finally:
        coder.train(was_training)
