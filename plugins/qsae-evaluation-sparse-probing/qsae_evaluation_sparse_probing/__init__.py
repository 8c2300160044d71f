"""Evaluation ``sparse-probing``: how well a few latents tell what is known of a token.

Imports no torch.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class SparseProbingConfig(ComponentConfig):
    """Logistic probes on the k latents that tell a property of Python source best, such as whether a token is
    in a string; beside them a probe on the raw vectors, one on the token alone, and two controls.

    Labels are computed by Python's own tokenizer and syntax tree; documents are split into training,
    validation and test.
    """

    tokens: int = option(65536, "held-out tokens to use, if the evaluation is given so many", gt=0)
    k: tuple[Annotated[int, Field(gt=0)], ...] = option(
        (1, 2, 5),
        "latents of a sparse probe, for each of these numbers",
        allowed="a list of whole numbers above 0, such as [1,2,5]",
        min_length=1,
    )
    train_examples: int = option(2000, "tokens of a task to train on at most, half of each class", ge=4)
    test_examples: int = option(
        1000, "tokens of a task to test on at most, half of each class; as many to validate on", ge=4
    )
    least_examples: int = option(
        30, "tokens of each class that each part has to have; a task with fewer is left out", gt=0
    )
    controls: int = option(5, "random draws over which each control is averaged", gt=0)
    resamples: int = option(200, "resamples of the test documents for standard errors", ge=2)
    seed: int = option(0, "of the choice of tokens, of controls and of resamples", ge=0)


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    target = "qsae_evaluation_sparse_probing.evaluation:SparseProbing"
    return [ComponentSpec("evaluation", "sparse-probing", SparseProbingConfig, target)]
