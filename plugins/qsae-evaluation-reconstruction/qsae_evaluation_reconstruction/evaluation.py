"""The evaluation ``reconstruction``."""

from __future__ import annotations

from collections.abc import Sequence

from qsae_core.contracts import (
    Accumulator,
    Evaluation,
    EvaluationContext,
    Metric,
    Observation,
    Result,
    computed,
)
from qsae_core.errors import ConfigError


class ReconstructionEvaluation(Evaluation):
    """Every metric of the run over the same held-out vectors, and ``n_tokens``, how many there were."""

    def start(self, context: EvaluationContext) -> Measured:
        """The run's metrics, which have seen nothing.

        Raises:
            ConfigError: if there are no metrics.
        """
        metrics = context.make_metrics()
        if not metrics:
            raise ConfigError(
                "there is nothing to evaluate: the run has no metrics", next="name some under `metrics:`"
            )
        return Measured(metrics)


class Measured(Accumulator):
    """Metrics, and how many tokens they have seen."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics, self.seen = metrics, 0

    def update(self, observation: Observation) -> None:
        """Show a batch to every metric."""
        self.seen += len(observation.target)
        for metric in self.metrics:
            metric.update(observation)

    def merge(self, other: Measured) -> None:
        """Metric by metric."""
        self.seen += other.seen
        for metric, its in zip(self.metrics, other.metrics, strict=True):
            metric.merge(its)

    def result(self) -> Result:
        """The metrics' values by their names.

        Raises:
            ConfigError: if two metrics give a value of one name.
        """
        return Result(computed(self.metrics, self.seen))
