"""Evaluations ``sparse-probing`` and ``sae-probes``: how well a few latents tell what is known of a token,
and how a prompt was labelled.

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


class SaeProbesConfig(ComponentConfig):
    """Logistic probes on the k latents that tell labels of prompts best, from the code of each prompt's last
    token, after the protocol of sae-probes 0.4; with the probes and controls of sparse-probing beside them.

    Prompts are those of the installed package sae-probes, or of a folder of your own.
    """

    tasks: tuple[str, ...] | None = option(
        None,
        "tasks, by the names of their files without .csv; none: of the package a selection of six, of a "
        "folder all; all alone: every task of two labels",
        allowed="a list of names, such as [87_glue_cola,92_glue_sst2], or [all]",
        min_length=1,
    )
    data: str | None = option(
        None,
        "folder of .csv or .csv.zst files, one a task, with columns prompt and target; none: those of the "
        "installed package sae-probes",
    )
    k: tuple[Annotated[int, Field(gt=0)], ...] = option(
        (1, 2, 5),
        "latents of a sparse probe, for each of these numbers",
        allowed="a list of whole numbers above 0, such as [1,2,5]",
        min_length=1,
    )
    prompts: int = option(
        1524, "prompts of a task at most, half of each class; 1024 of them train, all others test", ge=114
    )
    context: int = option(
        128, "tokens of a prompt at most, from its end, that of the beginning included", ge=2
    )
    repeats: bool = option(
        False,
        "whether prompts that stand in a file several times are all kept, as sae-probes does; some are then "
        "trained on and tested on",
    )
    least_prompts: int = option(
        64, "prompts of each class that a task has to have; one with fewer is left out, and counted", ge=57
    )
    controls: int = option(5, "random draws over which each control is averaged", gt=0)
    resamples: int = option(200, "resamples of the test prompts for standard errors", ge=2)
    seed: int = option(0, "of the choice of prompts, of controls and of resamples", ge=0)


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The two components of this plugin."""
    here = "qsae_evaluation_sparse_probing"
    return [
        ComponentSpec(
            "evaluation", "sparse-probing", SparseProbingConfig, f"{here}.evaluation:SparseProbing"
        ),
        ComponentSpec("evaluation", "sae-probes", SaeProbesConfig, f"{here}.sae_probes:SaeProbes"),
    ]
