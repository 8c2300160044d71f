"""The numbers that follow from counts, of all latents or of a stretch. Shapes: F latents."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qsae_core.contracts import Table
from qsae_evaluation_sparsity.firing import Firing

Value = float | None
THRESHOLDS = {"1pct": 0.01, "10pct": 0.1}
"""Densities above which a latent is counted, as SAEBench does."""


def moments(tokens_with: Tensor) -> tuple[Value, Value]:
    """Mean and standard deviation over tokens of L0, from its histogram; None without tokens."""
    n = int(tokens_with.sum())
    if n == 0:
        return None, None
    l0 = torch.arange(len(tokens_with), dtype=torch.float64)
    mean = float((tokens_with * l0).sum()) / n
    return mean, math.sqrt(float((tokens_with * (l0 - mean).square()).sum()) / n)


def of_stretch(firing: Firing, where: slice, tokens_with: Tensor) -> dict[str, Value]:
    """L0, L1 and shares of densities of some latents; None without tokens, or where it is not finite.

    ``normalized_density_over_*`` = sum of p_j over the latents with p_j above the threshold / sum of all p_j.
    """
    l0, l0_std = moments(tokens_with)
    names = ["l1", "dead_fraction"]
    names += [f"{form}density_over_{name}" for form in ("", "normalized_") for name in THRESHOLDS]
    values: dict[str, Value] = {"l0": l0, "l0_std": l0_std, **dict.fromkeys([*names, "max_activation"])}
    if firing.n_tokens == 0 or firing.norms_F is None:
        return values
    fired_F, density_F = firing.fired_F[where], firing.density_F[where]
    values["l1"] = finite(float((firing.sum_F * firing.norms_F)[where].sum()) / firing.n_tokens)
    values["dead_fraction"] = float((fired_F == 0).double().mean())
    for name, threshold in THRESHOLDS.items():
        over_F = density_F > threshold
        values[f"density_over_{name}"] = float(over_F.double().mean())
        if l0:
            values[f"normalized_density_over_{name}"] = float(density_F[over_F].sum() / density_F.sum())
    values["max_activation"] = finite(float(firing.largest_F[where].max()))
    return values


def by_equal_latents(l0: Value, n_latents: int, n_tokens: int) -> dict[str, Value]:
    """What spread and dead share would be if each latent fired on each token with the same chance
    p = L0 / F, independently: sqrt(F p (1 - p)), and (1 - p)^N."""
    if l0 is None:
        return {"l0_std": None, "dead_fraction": None}
    p = l0 / n_latents
    return {"l0_std": math.sqrt(l0 * (1 - p)), "dead_fraction": (1 - p) ** n_tokens}


def histogram(firing: Firing, width: float) -> Table:
    """How many latents have a log10 density from one multiple of ``width`` to the next.

    A latent at an edge is in the bin above it; the last bin ends at 0 and holds it. The first row, without
    bounds, has the dead ones.
    """
    n_latents = len(firing.fired_F)
    dead = int((firing.fired_F == 0).sum())
    rows: list[tuple[Value, ...]] = [(None, None, dead, dead / n_latents)]
    alive = firing.density_F[firing.fired_F > 0]
    if len(alive):
        lowest = math.floor(math.log10(float(alive.min())) / width) - 1
        edges = [number * width for number in range(lowest, 1)]
        inner = torch.tensor([10.0**edge for edge in edges[1:-1]], dtype=torch.float64)
        counts = torch.bincount(torch.bucketize(alive, inner, right=True), minlength=len(edges) - 1).tolist()
        begin = next(i for i, count in enumerate(counts) if count)
        for i in range(begin, len(counts)):
            rows.append((edges[i], edges[i + 1], counts[i], counts[i] / n_latents))
    return Table(("log10_density_from", "log10_density_to", "latents", "share"), rows)


def deciles(firing: Firing) -> Table:
    """Deciles of L0 over tokens, and of three columns over the latents that fire at all.

    That of L0 is the smallest number that so many of the tokens do not exceed; the others lie between two
    latents where the share does.
    """
    shares = [i / 10 for i in range(11)]
    of_latents = [
        _quantiles(column[firing.fired_F > 0], shares)
        for column in (firing.density_F, firing.mean_active_F, firing.largest_F)
    ]
    below = firing.tokens_with[0].cumsum(0)
    l0: list[Value] = [None] * len(shares)
    if firing.n_tokens:
        # in integers: i tenths of the tokens, and at least one
        needed = [max(-(-i * firing.n_tokens // 10), 1) for i in range(11)]
        l0 = [float(n) for n in torch.searchsorted(below, torch.tensor(needed)).tolist()]
    rows = list(zip(shares, l0, *of_latents, strict=True))
    return Table(("share_below", "l0", "density", "mean_active", "max_activation"), rows)


def _quantiles(column: Tensor, shares: list[float]) -> list[Value]:
    if not len(column):
        return [None] * len(shares)
    place = torch.tensor(shares, dtype=torch.float64) * (len(column) - 1)
    ordered = column.sort().values
    low, high = ordered[place.floor().long()], ordered[place.ceil().long()]
    return [finite(value) for value in (low + (high - low) * (place - place.floor())).tolist()]


def finite(value: float) -> float | None:
    """The value; None where it is not finite."""
    return value if math.isfinite(value) else None
