"""What absorption is, for one concept on one token. Shapes: A latents that are active there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qsae_evaluation_absorption.probes import Bools, Floats, Ints

SHARE = 0.4
"""Of the probe's projection, what absorbing latents have to contribute at least."""
FRACTION_COSINE = 0.1
"""With the probe, of each latent that may absorb a part."""
FULL_COSINE = 0.025
"""With the probe, of the one latent that absorbs all."""
MOST_ABSORBERS = 3
SILENT = 1e-8
"""Activations below count as none."""


class Active(NamedTuple):
    """The active latents of a token, beside a concept's probe; u is its unit vector."""

    latents: Ints
    values: Floats
    """f_j"""
    dots: Floats
    """w_j . u = ||w_j|| cos(w_j, u)"""
    cosines: Floats


class Score(NamedTuple):
    """Absorption on one token."""

    fraction: float
    full: bool
    top: int
    """Latent that projects most on the probe; -1 where none projects above 0."""
    main_fires: bool


def absorption(active: Active, main: Ints, projection: float) -> Score:
    """How far other latents stand in for a concept's main ones.

    With p the token's projection on u, proj_j = f_j ||w_j|| cos(w_j, u), m the sum of the main latents'
    proj_j, and A that of the three largest proj_j > 0 of others with cos >= .1:

    fraction = 0 if m >= p or A / p < .4; 1 if m <= 0; else a / (a + m) with a = min(A, p - m).
    full: all main latents are below 1e-8, p > 0, and the latent of the largest proj_j has cos >= .025 and
    proj_j / p >= .4.

    Args:
        projection: p. At p <= 0 nothing is absorbed.
    """
    contributions = active.values * active.dots
    is_main = np.isin(active.latents, main)
    main_fires = bool((active.values[is_main] >= SILENT).any())
    best = int(contributions.argmax()) if len(contributions) else -1
    if best < 0 or contributions[best] <= 0:
        return Score(0.0, False, -1, main_fires)
    top = int(active.latents[best])
    if projection <= 0:
        return Score(0.0, False, top, main_fires)
    strong = active.cosines[best] >= FULL_COSINE and contributions[best] / projection >= SHARE
    fraction = _fraction(contributions, is_main, active.cosines, projection)
    return Score(fraction, bool(strong) and not main_fires, top, main_fires)


def _fraction(contributions: Floats, is_main: Bools, cosines: Floats, projection: float) -> float:
    of_main = float(contributions[is_main].sum())
    may_absorb = ~is_main & (cosines >= FRACTION_COSINE) & (contributions > 0)
    absorbed = float(np.sort(contributions[may_absorb])[-MOST_ABSORBERS:].sum())
    if of_main >= projection or absorbed / projection < SHARE:
        return 0.0
    if of_main <= 0:
        return 1.0
    absorbed = min(absorbed, projection - of_main)
    return absorbed / (absorbed + of_main)
