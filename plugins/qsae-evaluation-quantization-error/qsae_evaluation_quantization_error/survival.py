"""Survived, blurred, damaged, lost: what became of each latent, and how sure that is. Shapes: F latents."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import Table
from qsae_evaluation_quantization_error import QuantizationErrorConfig
from qsae_evaluation_quantization_error.pairs import Pairs, PairSums

CLASSES = ("survived", "blurred", "damaged", "lost")
EDGES = (-1.0, 0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Of the histogram of r."""


def judged(pairs: Pairs, least_firings: int) -> Tensor:
    """bool ``[F]``: latents of the twin that fire often enough, and vary."""
    return (pairs.firings_a >= least_firings) & pairs.varies_a


def correlation(pairs: Pairs, mask_F: Tensor) -> Tensor:
    """``[F]``: r of those that are judged; NaN for all others, and where the coder's latent never varies."""
    return torch.where(mask_F, pairs.r, torch.nan)


def members(r: Tensor, config: QuantizationErrorConfig) -> dict[str, Tensor]:
    """Class -> bool, of r's shape, of latents that are judged."""
    return {
        "survived": r >= config.survived,
        "blurred": (r < config.survived) & (r >= config.damaged),
        "damaged": r < config.damaged,
        "lost": r.isnan(),
    }


def scalars(pairs: Pairs, mask_F: Tensor, config: QuantizationErrorConfig) -> dict[str, Tensor]:
    """Name -> value of all latents together, ``[...]``; NaN where it is not defined.

    Args:
        pairs: ``[..., F]``.
        mask_F: the latents that are judged.
    """
    r, r_union, scale, jaccard = (
        values[..., mask_F] for values in (pairs.r, pairs.r_union, pairs.scale, pairs.jaccard)
    )
    weight = pairs.firings_a[..., mask_F]
    found = {
        "r_mean": r.nanmean(-1),
        "r_median": _median(r),
        "r_weighted": _weighted(r, weight),
        "r_union_mean": r_union.nanmean(-1),
        "scale_mean": scale.nanmean(-1),
        "scale_weighted": _weighted(scale, weight),
    }
    for name, of_class in members(r, config).items():
        found[f"{name}_share"] = of_class.double().mean(-1)
    for name, of_class in members(r, config).items():
        found[f"{name}_weighted"] = _weighted(of_class.double(), weight)
    left, entered = pairs.firings_a - pairs.both, pairs.firings_b - pairs.both
    found |= {
        "jaccard": pairs.both.sum(-1) / pairs.union.sum(-1),
        "jaccard_mean": jaccard.nanmean(-1),
        "left_share": left.sum(-1) / pairs.firings_a.sum(-1),
        "entered_share": entered.sum(-1) / pairs.firings_b.sum(-1),
    }
    return found


def _weighted(values: Tensor, weight: Tensor) -> Tensor:
    weight = torch.where(values.isnan(), 0.0, weight)
    return (values.nan_to_num() * weight).sum(-1) / weight.sum(-1)


def _median(values: Tensor) -> Tensor:
    """With the mean of the two in the middle where their number is even."""
    if not values.shape[-1]:
        return torch.full(values.shape[:-1], torch.nan, dtype=values.dtype, device=values.device)
    return values.nanquantile(0.5, dim=-1)


class Survival(NamedTuple):
    """What the sums say."""

    pairs: Pairs
    mask: Tensor
    """bool ``[F]``: who is judged."""
    r: Tensor
    """``[F]``, as ``correlation`` gives it."""
    values: Mapping[str, float | None]
    """As ``scalars``."""


def survival(sums: PairSums, config: QuantizationErrorConfig, mask_F: Tensor | None = None) -> Survival:
    """Each latent, and all together.

    Args:
        mask_F: who is judged; None: as ``judged`` says.
    """
    pairs = sums.whole()
    mask = judged(pairs, config.least_firings) if mask_F is None else mask_F
    values = {name: _number(v) for name, v in scalars(pairs, mask, config).items()}
    return Survival(pairs, mask, correlation(pairs, mask), values)


def standard_errors(
    sums: PairSums, mask_F: Tensor, config: QuantizationErrorConfig
) -> dict[str, float | None]:
    """Of each of the ``scalars``: by the jackknife over the groups of tokens; None where one is empty.

    ``SE^2 = (G - 1) / G sum_g (v_g - mean v)^2``, with v_g the value without group g.
    """
    n = len(sums.tokens)
    found = scalars(sums.without_each(), mask_F, config)
    if n < 2 or not bool((sums.tokens > 0).all()):
        return dict.fromkeys(found)
    return {name: _number(((n - 1) * v.var(unbiased=False)).sqrt()) for name, v in found.items()}


def _number(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else float(value)


def class_names(found: Survival, config: QuantizationErrorConfig) -> list[str | None]:
    """The class of each latent; None of those that are not judged."""
    names: list[str | None] = [None] * len(found.r)
    for name, of_class in members(found.r, config).items():
        for latent in (of_class & found.mask).nonzero().flatten().tolist():
            names[latent] = name
    return names


def histogram(found: Survival, beside: Mapping[str, Survival]) -> Table:
    """How many latents have an r between two numbers (the upper one not included, but for 1); last those
    that have none, because the coder's latent never varies.

    Args:
        beside: column -> another pairing, of which the number of latents stands there too.
    """
    counts = {name: _counts(other) for name, other in {"latents": found, **beside}.items()}
    weight = torch.where(found.mask, found.pairs.firings_a, 0.0)
    shares = _counts(found, weight / weight.sum()) if bool(found.mask.any()) else [0.0] * len(EDGES)
    spans = [f"{start:g} to {end:g}" for start, end in itertools.pairwise(EDGES)]
    rows: list[list[str | int | float | None]] = [
        [span, *(int(column[i]) for column in counts.values()), shares[i]]
        for i, span in enumerate([*spans, "lost"])
    ]
    strongest_first = [*rows[-2::-1], rows[-1]]
    return Table(("r", *counts, "share_of_twin_firings"), strongest_first)


def _counts(found: Survival, weight: Tensor | None = None) -> list[float]:
    weight = torch.ones_like(found.r) if weight is None else weight
    edges = torch.tensor(EDGES[1:-1], dtype=torch.float64, device=found.r.device)
    place = torch.bucketize(found.r, edges, right=True)
    place = torch.where(found.r.isnan(), len(EDGES) - 1, place)[found.mask]
    return torch.bincount(place, weight[found.mask], minlength=len(EDGES)).tolist()
