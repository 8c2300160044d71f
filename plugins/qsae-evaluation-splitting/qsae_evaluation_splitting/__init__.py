"""Evaluation ``splitting``: latents that are there twice, and latents that others divide among them."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class SplittingConfig(ComponentConfig):
    """Duplicates: pairs of latents that fire together and write the same. Splits: latents whose firings
    others share out among them, each its own part; between the groups of a nested coder, else within the
    dictionary."""

    tokens: int = option(65_536, "held-out tokens to use, if the evaluation is given so many", gt=0)
    min_fired: int = option(50, "firings below which a latent is neither parent nor child", gt=0)
    max_density: float = option(
        0.5,
        "share of tokens above which a latent is no parent: where it fires almost always, all others are its "
        "children by chance",
        gt=0,
        le=1,
    )
    child_share: float = option(0.8, "j is a child of i where P(i fires | j fires) is above it", ge=0, lt=1)
    coverage: float = option(0.8, "a split parent's P(any child fires | it fires) is above it", ge=0, lt=1)
    exclusivity: float = option(0.8, "1 - mean Jaccard of a split parent's children is above it", ge=0, lt=1)
    max_children: int = option(
        32, "children of one parent that are compared with each other, the most frequent ones", ge=2
    )
    jaccard: float = option(0.5, "duplicates fire together with a Jaccard index above it", ge=0, lt=1)
    cosine: float = option(0.9, "duplicates have decoder rows with a cosine above it", ge=-1, lt=1)
    max_pairs: int = option(
        10_000_000,
        "pairs of latents that are counted at most, 16 bytes each and several times that while counts are "
        "added up; where there are more, parents and duplicates are looked for among half of the latents, "
        "and half again",
        gt=0,
    )
    max_updates: int = option(
        300_000_000,
        "firings of pairs that are counted at most, which is what takes the time; where there are more, as "
        "with max_pairs",
        gt=0,
    )
    rows_shown: int = option(50, "split parents and pairs of duplicates in the tables", ge=0)


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    target = "qsae_evaluation_splitting.evaluation:Splitting"
    return [ComponentSpec("evaluation", "splitting", SplittingConfig, target)]
