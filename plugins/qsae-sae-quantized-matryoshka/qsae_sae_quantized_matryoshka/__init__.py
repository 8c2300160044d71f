"""SAE variant ``quantized-matryoshka``: levels of ever smaller atoms, binary codes, ternary weights."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from qsae_core import AuxKConfig, ComponentSpec, hookimpl, option


class QuantizedMatryoshkaConfig(AuxKConfig):
    """Latents in n_levels levels, whose atoms halve in size; each adds to what the levels before it gave."""

    n_levels: int = option(
        4, "levels; their sizes are proportional to 1, 1, 2, 4, ..., 2^(n_levels - 2)", ge=1, le=12
    )
    gamma: Annotated[float, Field(gt=0)] | None = option(
        None,
        "atoms of level i (from 0) begin with the norm gamma / 2^(i + 1), in the normalised space; "
        "none: gamma is the norm of the vectors there (root mean square)",
    )
    prefix_weight: float = option(
        0.03,
        "weight of the error that each level but the last leaves in the loss, where that of the whole "
        "dictionary has 1",
        ge=0,
        allow_inf_nan=False,
    )
    joint_gradient: bool = option(
        True, "let a level's error change the levels before it as well; off: each level learns alone"
    )
    secant: bool = option(
        False,
        "the gradient of a bit is the change of the error when it flips, not the slope at its value",
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> QuantizedMatryoshkaConfig:
        if self.expansion is None and self.n_latents < 2 ** (self.n_levels - 1):
            raise ValueError(
                f"{self.n_levels} levels need {2 ** (self.n_levels - 1)} latents at least, "
                f"and there are {self.n_latents}"
            )
        return self

    def prefixes(self) -> tuple[int, ...]:
        """Latents of the first 1, 2, ... levels."""
        unit = self.n_latents // 2 ** (self.n_levels - 1)
        return (*(unit * 2**i for i in range(self.n_levels - 1)), self.n_latents)

    def sizes(self) -> list[int]:
        """Latents of each level."""
        prefixes = self.prefixes()
        return [end - start for start, end in zip((0, *prefixes), prefixes, strict=False)]

    def first_groups(self, level: int) -> QuantizedMatryoshkaConfig:
        """As many latents and levels."""
        return self.model_copy(update={"n_latents": self.prefixes()[level - 1], "n_levels": level})


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``quantized-matryoshka``."""
    return [
        ComponentSpec(
            "sae",
            "quantized-matryoshka",
            QuantizedMatryoshkaConfig,
            "qsae_sae_quantized_matryoshka.model:QuantizedMatryoshkaSAE",
            default_parts={
                "quantizer": {"use": "ste"},  # ternary
                "activation": None,  # the step is the method
                "code_quantizer": None,  # nothing is left to quantize
                "sparsity": {"use": "batchtopk", "k": 4},  # of the first level
            },
        )
    ]
