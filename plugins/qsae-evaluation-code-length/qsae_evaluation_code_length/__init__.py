"""Evaluation ``code-length``: bits that codes cost, latent by latent."""

from __future__ import annotations

from typing import Literal

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class CodeLengthConfig(ComponentConfig):
    """Bits per token of the codes, latent by latent: which latents cost most, and what a code costs that
    knows none of them apart. The dictionary's own bits stand beside them."""

    block: int = option(
        256,
        "tokens that are fitted, then scored, at a time; neighbours of one text should not fall into both",
        gt=0,
    )
    dictionary: Literal["apart", "amortized"] = option(
        "apart",
        "whether `bits_total`, bits per token, is of the codes alone (apart) or has the dictionary's bits "
        "spread over tokens in it (amortized); both are among the values in either case",
    )
    amortize_over: int | None = option(
        None, "tokens over which the dictionary's bits are spread; none: those that were measured", gt=0
    )
    groups: int = option(
        8,
        "parts of the scored tokens whose means tell the standard error; levels are counted in each of them",
        ge=2,
    )
    rows: int = option(20, "latents in the table of the costliest", ge=0)


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    target = "qsae_evaluation_code_length.evaluation:CodeLength"
    return [ComponentSpec("evaluation", "code-length", CodeLengthConfig, target)]
