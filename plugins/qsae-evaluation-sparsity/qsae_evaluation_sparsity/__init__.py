"""Evaluation ``sparsity``: how often latents fire, and which of them are dead or dense."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class SparsityEvaluationConfig(ComponentConfig):
    """How often latents fire and how strongly, which are dead or dense, and how many fire on a token; of each
    latent, of each group of a nested coder, and of each layer where latents belong to layers."""

    bin_width: float = option(
        0.25, "width of a bin of the histogram of log10 density", ge=0.01, le=10, allowed="from 0.01 to 10"
    )


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    target = "qsae_evaluation_sparsity.evaluation:SparsityEvaluation"
    return [ComponentSpec("evaluation", "sparsity", SparsityEvaluationConfig, target)]
