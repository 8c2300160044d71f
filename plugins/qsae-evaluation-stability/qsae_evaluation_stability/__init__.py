"""Evaluation ``stability``: how much of a dictionary comes back with another seed."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class StabilityConfig(ComponentConfig):
    """How much of a dictionary comes back when the same coder is trained with another seed: PW-MCC over all
    pairs of seeds, for each latent the cosine of its partner in every other seed, and the correlation of
    their codes on the same tokens.
    """

    others: list[str] = option(
        [],
        "runs of the same coder with other seeds: their folders, or artifacts",
        allowed="a list of paths",
    )
    returned_above: list[float] = option(
        [0.7, 0.9], "cosines above which a latent has come back", allowed="cosines below 1"
    )
    tokens: int = option(
        16384,
        "held-out tokens on which the codes of all seeds are compared; each run encodes them all; 0: atoms "
        "alone",
        ge=0,
    )
    min_firings: int = option(20, "firings below which a latent's correlation is not defined", gt=1)
    exact_up_to: int = option(
        4096,
        "latents up to which the matching is exact; above, pairs that are each other's nearest come first",
        gt=0,
    )
    seed: int = option(0, "of the random unit vectors that give the chance level", ge=0)


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    target = "qsae_evaluation_stability.evaluation:Stability"
    return [ComponentSpec("evaluation", "stability", StabilityConfig, target)]
