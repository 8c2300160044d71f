"""SAE variant ``matryoshka``: nested groups of latents, each prefix a dictionary of its own."""

from __future__ import annotations

from qsae_core import ComponentSpec, NestedConfig, hookimpl


class MatryoshkaConfig(NestedConfig):
    """Matryoshka SAE (Bussmann et al., 2025): mean over nested prefixes of the squared error, plus AuxK."""


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``matryoshka``."""
    return [
        ComponentSpec(
            "sae",
            "matryoshka",
            MatryoshkaConfig,
            "qsae_sae_matryoshka.model:MatryoshkaSAE",
            default_parts={"activation": {"use": "relu"}, "sparsity": {"use": "batchtopk", "k": 32}},
        )
    ]
