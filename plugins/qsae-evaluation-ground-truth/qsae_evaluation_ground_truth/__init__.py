"""Evaluation ``ground-truth``: how much of a known dictionary is found."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class GroundTruthConfig(ComponentConfig):
    """How much of the dictionary that the data was made of the coder has found: its atoms, matched one to one
    with the true features, and whether a latent fires where its feature is active. For data that knows its
    features, such as `synthetic`.
    """

    tokens: int = option(
        65536, "held-out tokens whose firing is compared, if the evaluation is given so many", gt=0
    )
    found_above: list[float] = option(
        [0.7, 0.9], "|cos| above which a matched feature counts as found", allowed="numbers below 1"
    )
    exact_up_to: int = option(
        4096,
        "latents or features up to which the matching is exact; above, pairs that are each other's nearest "
        "come first",
        gt=0,
    )
    seed: int = option(0, "of the random unit vectors that give the chance level", ge=0)


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    target = "qsae_evaluation_ground_truth.evaluation:GroundTruth"
    return [ComponentSpec("evaluation", "ground-truth", GroundTruthConfig, target)]
