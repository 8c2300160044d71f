"""Evaluation ``gradients``: what training sees of a quantized coder, and how true that is."""

from __future__ import annotations

from qsae_core import ComponentSpec, EvaluationConfig, hookimpl, option


class GradientsConfig(EvaluationConfig):
    """Gradients of the training loss on held-out batches: their norms, how far straight-through gradients are
    from what the quantized loss does, and how many weights are at the grid's ends or near a boundary.

    It needs the float masters of quantized matrices: `--save-float` keeps them.
    """

    tokens: int = option(
        2048, "held-out tokens to use, if the evaluation is given so many; they are kept in memory", gt=0
    )
    batch: int = option(
        512, "tokens of one training batch: a gradient is that of so many; differences are of the first", gt=0
    )
    directions: int = option(
        32,
        "random directions for each matrix; each takes 2 passes of one batch, and 2 with the quantizers off",
        gt=0,
    )
    perturbation: float = option(
        0.02,
        "how far weights are moved along a direction: root mean square of the change, as a share of that of "
        "the matrix",
        gt=0,
    )
    rate: float = option(
        1e-3,
        "size of one step of a weight, as of Adam: the run's learning rate; weights that such a step would "
        "take over a boundary are near it",
        gt=0,
    )
    seed: int = option(0, "of the directions, and of chance in the loss")


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    target = "qsae_evaluation_gradients.evaluation:Gradients"
    return [ComponentSpec("evaluation", "gradients", GradientsConfig, target)]
