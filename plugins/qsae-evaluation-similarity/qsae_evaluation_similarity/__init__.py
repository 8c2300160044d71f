"""Evaluation ``similarity``: how alike decoder rows are, within a dictionary and between two."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option

TWIN = "twin"
"""What ``other`` says for the full-precision twin."""


class SimilarityConfig(ComponentConfig):
    """How alike a coder's atoms are: each one's nearest, duplicates, atoms of zeros, agreement with the
    encoder, use of the grid. And, with ``other``, how much of the dictionary another one has too: MMCS both
    ways, and PW-MCC by a one-to-one matching. All beside random unit vectors of the same shape.
    """

    other: str | None = option(
        None,
        "the coder to compare with: a run's folder or an artifact; `twin`: the full-precision twin beside "
        "the coder; none: the dictionary is looked at alone",
        min_length=1,
    )
    duplicate_above: float = option(0.9, "cosine above which two atoms are duplicates", gt=0, lt=1)
    matched_above: list[float] = option(
        [0.7, 0.9], "cosines above which a matched pair counts as the same atom", allowed="cosines below 1"
    )
    exact_up_to: int = option(
        4096,
        "latents up to which the matching is exact; above, pairs that are each other's nearest come first",
        gt=0,
    )
    seed: int = option(0, "of the random unit vectors that give the chance level", ge=0)


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    target = "qsae_evaluation_similarity.evaluation:Similarity"
    return [ComponentSpec("evaluation", "similarity", SimilarityConfig, target)]
