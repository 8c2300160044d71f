"""Quantizers for trained coders: rounding at the best scale, and rounding that knows the codes."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class RtnConfig(ComponentConfig):
    """Round each weight to the nearest point of its row's uniform grid, whose scale has the least error."""

    n_bits: int = option(4, "bits per weight; below 5 the grid has no zero", aliases=("bits",), ge=1, le=8)


class GptqConfig(RtnConfig):
    """Round latent after latent, and let the later ones make up for the errors (Frantar et al., 2023)."""

    damping: float = option(0.01, "share of the Hessian's mean diagonal that is added to it", gt=0)
    block: int = option(2048, "latents that are rounded together: those that are active together", gt=0)


@hookimpl
def qsae_register_quantizers() -> list[ComponentSpec]:
    """Register every quantizer of this distribution."""
    module = "qsae_quantizers_post_training"
    return [
        ComponentSpec("quantizer", "rtn", RtnConfig, f"{module}.rtn:Rtn"),
        ComponentSpec("quantizer", "gptq", GptqConfig, f"{module}.gptq:Gptq"),
    ]
