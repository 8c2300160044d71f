"""Evaluation ``monosemanticity``: how far the token alone says whether a latent fires."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class MonosemanticityConfig(ComponentConfig):
    """Lexical selectivity: the entropy of the tokens on which a latent fires, beside that of as many random
    positions of the same text. 1: always the same token; 0: no better than random positions."""

    min_fired: int = option(50, "firings below which a latent has no score", ge=2)
    max_pairs: int = option(
        8_000_000,
        "pairs of a latent and a token that are counted at most, 16 bytes each and several times that while "
        "counts are added up; where there are more, half of the latents are left out, and half again",
        gt=0,
    )
    latents_shown: int = option(50, "latents in the table of tokens, those of the highest score", ge=0)
    tokens_shown: int = option(5, "tokens of each latent in that table, the most frequent ones", gt=0)


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    target = "qsae_evaluation_monosemanticity.evaluation:Monosemanticity"
    return [ComponentSpec("evaluation", "monosemanticity", MonosemanticityConfig, target)]
