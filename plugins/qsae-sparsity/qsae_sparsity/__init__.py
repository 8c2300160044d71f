"""Sparsity rules: which latents stay in the code, and what sparsity costs."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option

SameConfig = TypeVar("SameConfig", bound="CountConfig")


class CountConfig(ComponentConfig):
    """A number of active latents per token, or the share of all latents that they are."""

    k: int = option(32, "active latents per token", aliases=("top-k",), gt=0)
    k_share: float | None = option(
        None, "active latents per token as a share of all latents, instead of k", instead_of="k", gt=0, le=1
    )

    def for_latents(self: SameConfig, n_latents: int) -> SameConfig:
        """With the number, 1 at least, in place of the share."""
        if self.k_share is None:
            return self
        return self.model_copy(update={"k": max(1, round(self.k_share * n_latents)), "k_share": None})


class TopKConfig(CountConfig):
    """Keep the k largest latents of each token (Makhzani and Frey, 2013; Gao et al., 2024)."""


class BatchTopKConfig(CountConfig):
    """Keep the k B largest latents of a batch of B tokens; above a threshold when evaluated."""

    k: int = option(32, "active latents per token, on average over a batch", aliases=("top-k",), gt=0)


class L1Config(ComponentConfig):
    """All non-zero latents, and coefficient * sum_j |f_j| ||w_j|| in the loss (Conerly et al., 2024)."""

    coefficient: float = option(
        0.2,
        "weight of the penalty beside the normalised error, activations in units of the data's RMS norm",
        aliases=("l1-coefficient", "l1"),
        ge=0,
        allow_inf_nan=False,
    )


class TanhConfig(ComponentConfig):
    """All non-zero latents, and coefficient * sum_j tanh(c |f_j| ||w_j||) in the loss (Ameisen, Lindsey et
    al., 2025)."""

    coefficient: float = option(
        0.004,
        "weight of the penalty beside the normalised error: the share of the variance that a latent far "
        "above 1 / c has to explain",
        aliases=("tanh-coefficient",),
        ge=0,
        allow_inf_nan=False,
    )
    c: float = option(
        4.0,
        "how fast the price of a latent saturates, activations in units of the data's RMS norm",
        aliases=("tanh-c",),
        gt=0,
        allow_inf_nan=False,
    )


class L0Config(ComponentConfig):
    """All non-zero latents, and a price on their number in the loss (Rajamanoharan et al., 2024)."""

    coefficient: Annotated[float, Field(ge=0)] | Literal["auto"] = option(
        "auto",
        "weight of the penalty beside the normalised error: the share of the variance that an active latent "
        "has to explain; auto: 0.002, with a target 10 times that times it, so that a latent above it costs "
        "more than one is usually worth",
        aliases=("l0-coefficient", "l0"),
    )
    target: float | None = option(
        None,
        "active latents per token to aim at: coefficient * (L0 / target - 1)^2; none: coefficient * L0",
        aliases=("target-l0",),
        gt=0,
    )


class GroupMaxConfig(ComponentConfig):
    """Split the latents into k groups of neighbours and keep the largest latent of each."""

    k: int = option(
        32, "groups, and so active latents per token; divides n_latents", aliases=("groups",), gt=0
    )


class NoRuleConfig(ComponentConfig):
    """Keep every non-zero latent; no penalty."""


@hookimpl
def qsae_register_sparsity_rules() -> list[ComponentSpec]:
    """Register the rules."""
    return [
        ComponentSpec("sparsity", "topk", TopKConfig, "qsae_sparsity.topk:TopK"),
        ComponentSpec("sparsity", "batchtopk", BatchTopKConfig, "qsae_sparsity.batchtopk:BatchTopK"),
        ComponentSpec("sparsity", "groupmax", GroupMaxConfig, "qsae_sparsity.groupmax:GroupMax"),
        ComponentSpec("sparsity", "l0", L0Config, "qsae_sparsity.l0:L0"),
        ComponentSpec("sparsity", "l1", L1Config, "qsae_sparsity.l1:L1"),
        ComponentSpec("sparsity", "tanh", TanhConfig, "qsae_sparsity.tanh:Tanh"),
        ComponentSpec("sparsity", "none", NoRuleConfig, "qsae_sparsity.none:NoRule"),
    ]
