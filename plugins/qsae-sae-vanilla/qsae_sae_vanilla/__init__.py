"""SAE variant ``vanilla``: ReLU latents and an L1 penalty weighted by the norms of the atoms."""

from __future__ import annotations

from qsae_core import ComponentSpec, OffsetConfig, hookimpl


class VanillaConfig(OffsetConfig):
    """ReLU SAE with L1 (Bricken et al., 2023; norm-weighted penalty: Conerly et al., 2024)."""


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``vanilla``."""
    return [
        ComponentSpec(
            "sae",
            "vanilla",
            VanillaConfig,
            "qsae_sae_vanilla.model:VanillaSAE",
            default_parts={"activation": {"use": "relu"}, "sparsity": {"use": "l1"}},
        )
    ]
