"""Metrics ``reconstruction``, ``sparsity``, ``rate`` and ``kappa``, streamed in float64."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class ReconstructionConfig(ComponentConfig):
    """How well vectors are reconstructed: FVU, explained variance, errors, cosine, norm ratio, bias."""

    legacy: bool = option(
        False,
        "also report explained_variance_legacy, which takes variances per token about its batch's mean; "
        "for comparison with older tools, and the one value that depends on the batch size",
    )


class SparsityConfig(ComponentConfig):
    """How sparse codes are: L0, L1, dead latents and how often latents fire."""


class RateConfig(ComponentConfig):
    """Bits per token that a code takes, for its support and for its values."""

    block: int = option(
        256,
        "tokens that are fitted, then scored, at a time; neighbours of one text should not fall into both",
        gt=0,
    )


class KappaConfig(ComponentConfig):
    """Energy that goes through the atoms, their quantization error, and the FVU that it should cost."""


@hookimpl
def qsae_register_metrics() -> list[ComponentSpec]:
    """The metrics of this plugin."""
    return [
        ComponentSpec(
            "metric", "reconstruction", ReconstructionConfig, "qsae_metrics.reconstruction:Reconstruction"
        ),
        ComponentSpec("metric", "sparsity", SparsityConfig, "qsae_metrics.sparsity:Sparsity"),
        ComponentSpec("metric", "rate", RateConfig, "qsae_metrics.rate:Rate"),
        ComponentSpec("metric", "kappa", KappaConfig, "qsae_metrics.prediction:Kappa"),
    ]
