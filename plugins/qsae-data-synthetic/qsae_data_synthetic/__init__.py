"""Data source ``synthetic``: superposition of a known dictionary."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option

TINY: dict[str, Any] = {
    "d_model": 64,
    "n_features": 256,
    "p_max": 0.2,
    "p_min": 0.005,
    "zipf": 0.5,
    "n_roots": 8,
    "branching": 2,
    "depth": 2,
    "rank": 8,
    "shared_variance": 0.25,
    "magnitude_first": 5.0,
    "magnitude_last": 4.0,
    "magnitude_std": 0.5,
    "magnitude_std_spread": 0.5,
    "bias_norm": 0.5,
    "noise_std": 0.05,
    "orthogonalize_steps": 8,
}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": TINY,
    "synthsaebench-16k": {
        **TINY,
        "d_model": 768,
        "n_features": 16384,
        "p_max": 0.4,
        "p_min": 5e-4,
        "n_roots": 128,
        "branching": 4,
        "depth": 3,
        "rank": 25,
        "noise_std": 0.0,
        "orthogonalize_steps": 3,
    },
}


class SyntheticConfig(ComponentConfig):
    """Superposition of a known dictionary: x = sum_i z_i a_i d_i + bias + noise.

    Unit vectors d_i that are nearly orthogonal; firings z_i with power-law rates, a Gaussian copula and a
    hierarchy (a child needs its parent, siblings exclude each other); magnitudes a_i = ReLU(mu_i + sigma_i
    N). A preset gives every option that is not given. After SynthSAEBench (Chanin and Garriga-Alonso, 2026).
    With ``d_target`` a token has a target of its own, made of the same features by another dictionary.
    """

    preset: Literal["tiny", "synthsaebench-16k"] = option(
        "tiny", "the options' values where they are not given: 256 features in 64 dimensions, or 16384 in 768"
    )
    d_model: int = option(TINY["d_model"], "width of the vectors", gt=0)
    n_features: int = option(TINY["n_features"], "features of the true dictionary", gt=0)
    p_max: float = option(TINY["p_max"], "rate at which the most frequent feature fires", gt=0, lt=1)
    p_min: float = option(TINY["p_min"], "rate of the rarest feature", gt=0, lt=1)
    zipf: float = option(TINY["zipf"], "exponent of the power law between these rates", gt=0)
    n_roots: int = option(TINY["n_roots"], "trees of the hierarchy; 0: no hierarchy", ge=0)
    branching: int = option(TINY["branching"], "children of each parent", gt=0)
    depth: int = option(TINY["depth"], "levels below the roots", ge=0)
    rank: int = option(TINY["rank"], "common factors behind the firings", gt=0)
    shared_variance: float = option(
        TINY["shared_variance"],
        "share of each firing's Gaussian that the factors make up; 0: independent",
        ge=0,
        lt=1,
    )
    magnitude_first: float = option(TINY["magnitude_first"], "mean mu of the most frequent feature", gt=0)
    magnitude_last: float = option(TINY["magnitude_last"], "mean mu of the rarest; linear between", gt=0)
    magnitude_std: float = option(
        TINY["magnitude_std"], "sigma_i = |N(magnitude_std, magnitude_std_spread)|: the mean", ge=0
    )
    magnitude_std_spread: float = option(TINY["magnitude_std_spread"], "its spread over features", ge=0)
    bias_norm: float = option(TINY["bias_norm"], "norm of the constant vector that is added", ge=0)
    noise_std: float = option(TINY["noise_std"], "standard deviation of the noise in each dimension", ge=0)
    orthogonalize_steps: int = option(
        TINY["orthogonalize_steps"], "gradient steps on sum (d_i . d_j)^2; 0: random directions", ge=0
    )
    layers: int = option(
        1, "vectors of a token: the same features, their directions turned by a rotation for each layer", gt=0
    )
    d_target: int | None = option(
        None, "width of targets for transcoders; none: vectors are their own targets", gt=0
    )
    target_share: float = option(
        1.0, "share of the features that the targets are made of, drawn at random", gt=0, le=1
    )
    target_threshold: float = option(
        0.0, "what a feature's activation has to exceed to count in its target: ReLU(a - threshold)", ge=0
    )
    world_seed: int = option(
        0,
        "decides all that is fixed, and the held-out stream; the run's seed decides the training stream",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        preset = given.get("preset", "tiny")
        return {**PRESETS[preset], **given} if preset in tuple(PRESETS) else given

    @model_validator(mode="after")
    def _check(self) -> SyntheticConfig:
        if self.p_min > self.p_max:
            raise ValueError(f"p_min {self.p_min} is above p_max {self.p_max}")
        if self.in_trees > self.n_features:
            raise ValueError(
                f"{self.n_roots} trees of {self.in_trees // self.n_roots} features each do not fit into "
                f"{self.n_features} features"
            )
        if self.d_target is None and (self.target_share, self.target_threshold) != (1, 0):
            raise ValueError("target_share and target_threshold are of targets, and d_target is not given")
        return self

    @property
    def n_target_features(self) -> int:
        """Features that the targets are made of; 0 without targets."""
        return 0 if self.d_target is None else max(1, round(self.target_share * self.n_features))

    @property
    def in_trees(self) -> int:
        """Features that are part of the hierarchy: the first ones."""
        return self.n_roots * sum(self.branching**level for level in range(self.depth + 1))


@hookimpl
def qsae_register_data_sources() -> list[ComponentSpec]:
    """The one component of this plugin."""
    return [ComponentSpec("data", "synthetic", SyntheticConfig, "qsae_data_synthetic.source:SyntheticSource")]
