"""What stays the same in a synthetic world: dictionary, rates, hierarchy, correlations, magnitudes.

Shapes: F features, D width, P parents (the first P features), C children of each, T features at the top
(roots and those in no tree), R common factors.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from qsae_data_synthetic import SyntheticConfig
from qsae_data_synthetic.hierarchy import Hierarchy, plant


@dataclass(frozen=True)
class Magnitudes:
    """a_i = ReLU(mean_i + std_i N).

    Attributes:
        mean, std: float32 ``[F]``.
        p_positive: float64 ``[F]``, the probability that a_i > 0.
    """

    mean: Tensor
    std: Tensor
    p_positive: Tensor


@dataclass(frozen=True)
class Copula:
    """Each firing is decided by a standard Gaussian, loading . factors + own N.

    A root or a feature in no tree fires where its Gaussian is below a threshold. The children of a parent
    share one Gaussian, whose rank in [0, 1] says which of them fires, if any. The loadings on the path from
    a root to a child are orthogonal, so that these Gaussians are independent and every rate is met exactly,
    while features of different trees correlate.

    Attributes:
        top_loading, top_own: loadings ``[T, R]`` of the top features, and the factor of their own N.
        child_loading, child_own: ``[P, R]`` and ``[P]``, the same for the Gaussian of each parent's children.
    """

    top_loading: Tensor
    top_own: float
    child_loading: Tensor
    child_own: Tensor


@dataclass(frozen=True)
class World:
    """Everything that the config and ``world_seed`` decide.

    Attributes:
        dictionary: float32 ``[F, D]``, unit rows.
        bias: float32 ``[D]``, what is added to every vector.
    """

    config: SyntheticConfig
    dictionary: Tensor
    bias: Tensor
    magnitudes: Magnitudes
    hierarchy: Hierarchy
    copula: Copula


def build_world(config: SyntheticConfig) -> World:
    """The world of a config; each ingredient has its own generator, so that an option changes one alone."""

    def seeded(ingredient: str) -> torch.Generator:
        return seeded_generator(config.world_seed, ingredient)

    magnitudes = draw_magnitudes(config, seeded("magnitudes"))
    hierarchy = plant(config, power_law(config), magnitudes.p_positive)
    bias = normalize(torch.randn(config.d_model, generator=seeded("bias")), dim=0)
    return World(
        config,
        nearly_orthogonal(
            config.n_features, config.d_model, config.orthogonalize_steps, seeded("dictionary")
        ),
        config.bias_norm * bias,
        magnitudes,
        hierarchy,
        draw_copula(config, len(hierarchy.top), seeded("copula")),
    )


def seeded_generator(*seeds: int | str) -> torch.Generator:
    """A generator that depends on these values and on nothing else."""
    digest = hashlib.blake2b(repr(seeds).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def power_law(config: SyntheticConfig) -> Tensor:
    """float64 ``[F]``: rates from p_max down to p_min, affine in rank^-zipf."""
    law = torch.arange(1, config.n_features + 1, dtype=torch.float64) ** -config.zipf
    if config.n_features == 1:
        return torch.full_like(law, config.p_max)
    return config.p_min + (config.p_max - config.p_min) * (law - law[-1]) / (law[0] - law[-1])


def nearly_orthogonal(n_features: int, width: int, steps: int, generator: torch.Generator) -> Tensor:
    """float32 ``[F, D]``: unit rows that minimise sum_{i != j} (d_i . d_j)^2, descending from random ones.

    That sum is ||D^T D||_F^2 - F, so its gradient 4 D (D^T D) needs no F x F matrix. Its least value is the
    Welch bound F^2 / D - F where F >= D, and 0 otherwise. With the step below, descent is the Newton-Schulz
    iteration towards a tight frame, which converges in a few steps.
    """
    rows = normalize(torch.randn(n_features, width, generator=generator), dim=1)
    balanced = max(n_features / width, 1.0)  # every eigenvalue of D^T D at the minimum, where it is not 0
    step = 0.5 if n_features >= 2 * width else 0.25  # eigenvalues start at up to 4 times that: stay below 3
    for _ in range(steps):
        gradient = rows @ (rows.T @ rows) / balanced - rows
        rows = normalize(rows - step * gradient, dim=1)
    return rows


def draw_magnitudes(config: SyntheticConfig, generator: torch.Generator) -> Magnitudes:
    """Means linear from the most frequent feature to the rarest, deviations folded normal."""
    mean = torch.linspace(config.magnitude_first, config.magnitude_last, config.n_features)
    noise = torch.randn(config.n_features, generator=generator)
    std = (config.magnitude_std + config.magnitude_std_spread * noise).abs()
    return Magnitudes(mean, std, torch.special.ndtr(mean.double() / std.double()))


def draw_copula(config: SyntheticConfig, n_top: int, generator: torch.Generator) -> Copula:
    """Loadings in random directions, of length sqrt(shared_variance), orthogonal along each path."""
    length, own = config.shared_variance**0.5, (1 - config.shared_variance) ** 0.5
    top = normalize(torch.randn(n_top, config.rank, generator=generator, dtype=torch.float64), dim=1)
    levels, owns = [], []
    path = top[: config.n_roots, None]  # [nodes, Gaussians so far, R], orthonormal
    for level in range(config.depth):
        direction = torch.randn(len(path), config.rank, generator=generator, dtype=torch.float64)
        for _ in range(2):  # once more takes away what rounding left
            direction -= torch.einsum("pr,plr,pls->ps", direction, path, path)
        free = level + 1 < config.rank  # else the path has used up every direction
        direction = normalize(direction, dim=1) * free
        levels.append(direction)
        owns += [own if free else 1.0] * len(path)
        path = torch.cat([path, direction[:, None]], 1).repeat_interleave(config.branching, 0)
    children = torch.cat(levels) if levels else top[:0]
    return Copula((length * top).float(), own, (length * children).float(), torch.tensor(owns))
