"""Evaluations of feature absorption: latents that fail to fire where another one says it for them.

``absorption`` asks it of first letters, as SAEBench does; ``token-property-absorption`` of properties of
tokens, for small language models; ``absorption-gap`` of features whose hierarchy is known.
"""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class AbsorptionConfig(ComponentConfig):
    """First-letter absorption as SAEBench 0.6 and sae-spelling define it; higher is worse.

    The language model reads prompts of the evaluation's own, at the site that the coder reads.
    """

    words: int | None = option(
        2000,
        "words to ask about, drawn from the tokens of letters alone; each is a prompt of about 90 tokens. "
        "none: all there are, as SAEBench does",
        gt=0,
    )
    seed: int = option(
        42, "decides the words, their split, the examples in prompts and the probes' batches", ge=0
    )


class TokenPropertyAbsorptionConfig(ComponentConfig):
    """The same steps on tokens of the held-out text, for properties that a token's text decides: keyword,
    first letter of identifiers, leading space, UPPER_CASE, digit, dunder. Not comparable with SAEBench's.
    """

    tokens: int = option(32768, "held-out tokens to look at, if the evaluation is given so many", gt=0)
    per_token: int = option(
        8,
        "of each token of the vocabulary its first so many places count, so that frequent ones do not "
        "outweigh all others",
        gt=0,
    )
    seed: int = option(42, "decides which tokens of the vocabulary probes train on, and their batches", ge=0)


class AbsorptionGapConfig(ComponentConfig):
    """P(parent's latent fires | parent, no child) - P(it fires | parent and child), where the data knows its
    features' hierarchy; 0 without absorption, 1 where it is complete.
    """

    tokens: int = option(65536, "held-out tokens to look at, if the evaluation is given so many", gt=0)
    min_cosine: float = option(
        0.7,
        "cosine with the true parent that a latent needs at least to count as the parent's",
        gt=0,
        le=1,
    )
    min_tokens: int = option(
        20, "tokens that a parent needs with a child, and as many without, to be measured", gt=0
    )
    seed: int = option(42, "decides which latents stand in for the parents' by chance", ge=0)


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The three components of this plugin."""
    here = "qsae_evaluation_absorption"
    return [
        ComponentSpec("evaluation", "absorption", AbsorptionConfig, f"{here}.first_letter:Absorption"),
        ComponentSpec(
            "evaluation",
            "token-property-absorption",
            TokenPropertyAbsorptionConfig,
            f"{here}.token_property:TokenPropertyAbsorption",
        ),
        ComponentSpec("evaluation", "absorption-gap", AbsorptionGapConfig, f"{here}.gap:AbsorptionGap"),
    ]
