"""SAE variant ``jumprelu``: a learned threshold per latent, and a price on their number."""

from __future__ import annotations

from qsae_core import ComponentSpec, OffsetConfig, hookimpl, option


class JumpReLUConfig(OffsetConfig):
    """JumpReLU SAE (Rajamanoharan et al., 2024): f = z 1[z > theta], squared error plus an L0 penalty."""

    preact_coefficient: float = option(
        0.0, "weight of the pre-activation loss on dead latents, ReLU(theta - z) ||w||; 0: off", ge=0
    )


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``jumprelu``."""
    return [
        ComponentSpec(
            "sae",
            "jumprelu",
            JumpReLUConfig,
            "qsae_sae_jumprelu.model:JumpReLUSAE",
            default_parts={
                "activation": {"use": "jumprelu", "theta0": 0.1, "bandwidth": 0.2},
                "sparsity": {"use": "l0"},
            },
        )
    ]
