"""SAE variant ``residual-quantized``: each level codes, in bits, what the levels before it left over."""

from __future__ import annotations

from pydantic import model_validator

from qsae_core import AuxKConfig, ComponentSpec, hookimpl, option


class ResidualQuantizedConfig(AuxKConfig):
    """Levels of equal size; level i codes twice the residual of level i - 1 in bits and ternary weights."""

    n_levels: int = option(
        4,
        "levels, with n_latents / n_levels latents each, and what does not divide in the last one",
        ge=1,
        le=16,
    )
    joint_gradient: bool = option(
        True, "let a level's error change the levels before it as well; off: each level learns alone"
    )
    secant: bool = option(
        True, "the gradient of a bit is the change of its level's error when it flips, not the slope"
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> ResidualQuantizedConfig:
        if self.expansion is None and self.n_latents < self.n_levels:
            raise ValueError(f"{self.n_levels} levels need at least as many latents, not {self.n_latents}")
        return self

    def prefixes(self) -> tuple[int, ...]:
        """Latents of the first 1, 2, ... levels; the last one has what does not divide evenly."""
        size = self.n_latents // self.n_levels
        return (*(size * i for i in range(1, self.n_levels)), self.n_latents)

    def rule_latents(self, layers_in: int) -> int:
        """Those of a level."""
        return self.n_latents // self.n_levels

    def first_groups(self, level: int) -> ResidualQuantizedConfig:
        """As many latents and levels."""
        return self.model_copy(update={"n_latents": self.prefixes()[level - 1], "n_levels": level})


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``residual-quantized``."""
    return [
        ComponentSpec(
            "sae",
            "residual-quantized",
            ResidualQuantizedConfig,
            "qsae_sae_residual_quantized.model:ResidualQuantizedSAE",
            default_parts={
                "quantizer": {"use": "ste"},  # ternary
                "activation": None,  # the step is the method
                "code_quantizer": None,  # nothing is left to quantize
                "sparsity": {"use": "batchtopk", "k": 8},  # of each level
            },
        )
    ]
