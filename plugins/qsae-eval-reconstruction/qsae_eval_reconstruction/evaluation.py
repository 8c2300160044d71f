"""The evaluation ``reconstruction``."""

from __future__ import annotations

from qsae_core.errors import ConfigError
from qsae_core.parts import Evaluation, EvaluationContext


class ReconstructionEvaluation(Evaluation):
    """Every metric of the run over the same held-out vectors, and ``n_tokens``, how many there were."""

    def run(self, context: EvaluationContext) -> dict[str, float | None]:
        """The metrics' values by their names.

        Raises:
            ConfigError: if there are no metrics, or two of them give a value of one name.
        """
        if not context.metrics:
            raise ConfigError(
                "there is nothing to evaluate: the run has no metrics", next="name some under `metrics:`"
            )
        n_tokens = 0
        for metric in context.metrics:
            metric.reset()
        for observation in context.observations():
            n_tokens += len(observation.target)
            for metric in context.metrics:
                metric.update(observation)
        values: dict[str, float | None] = {"n_tokens": float(n_tokens)}
        for metric in context.metrics:
            computed = metric.compute()
            taken = sorted(values.keys() & computed.keys())
            if taken:
                raise ConfigError(f"two metrics give a value named {', '.join(taken)}", next="leave one out")
            values |= computed
        return values
