"""The evaluation ``reconstruction``."""

from __future__ import annotations

from qsae_core.contracts import Evaluation, EvaluationContext, measure
from qsae_core.errors import ConfigError


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
        return measure(context.metrics, context.observations())
