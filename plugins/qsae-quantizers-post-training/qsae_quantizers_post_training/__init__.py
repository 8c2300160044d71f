"""Quantizers for trained coders: rounding at the best scale, and rounding that knows the codes."""

from __future__ import annotations

from typing import Literal

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class RtnConfig(ComponentConfig):
    """Round each weight to the nearest point of its row's uniform grid, whose scale has the least error."""

    n_bits: int = option(4, "bits per weight; below 5 the grid has no zero", aliases=("bits",), ge=1, le=8)


class GptqConfig(RtnConfig):
    """Round latent after latent, and let the later ones make up for the errors (Frantar et al., 2023)."""

    damping: float = option(0.01, "share of the Hessian's mean diagonal that is added to it", gt=0)
    block: int = option(2048, "latents that are rounded together: those that are active together", gt=0)


class Nf4Config(ComponentConfig):
    """16 quantiles of the normal distribution and a scale per block (Dettmers et al., 2023)."""

    block: int | None = option(None, "columns per scale; none: a divisor near 64, else the row", ge=1)
    scale: Literal["absmax", "best"] = option("best", "the largest magnitude, or that of least squared error")


@hookimpl
def qsae_register_quantizers() -> list[ComponentSpec]:
    """Register every quantizer of this distribution."""
    module = "qsae_quantizers_post_training"
    return [
        ComponentSpec("quantizer", "rtn", RtnConfig, f"{module}.rtn:Rtn"),
        ComponentSpec("quantizer", "gptq", GptqConfig, f"{module}.gptq:Gptq"),
        ComponentSpec("quantizer", "nf4", Nf4Config, f"{module}.nf4:Nf4"),
    ]
