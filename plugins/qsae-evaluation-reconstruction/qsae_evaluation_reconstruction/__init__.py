"""Evaluation ``reconstruction``: the run's metrics over held-out vectors."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl


class ReconstructionEvaluationConfig(ComponentConfig):
    """The run's metrics over held-out vectors that training never saw."""


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    return [
        ComponentSpec(
            "evaluation",
            "reconstruction",
            ReconstructionEvaluationConfig,
            "qsae_evaluation_reconstruction.evaluation:ReconstructionEvaluation",
        )
    ]
