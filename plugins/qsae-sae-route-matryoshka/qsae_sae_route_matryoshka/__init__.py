"""SAE variant ``route-matryoshka``: nested latents, and a choice of layer for each token."""

from __future__ import annotations

from qsae_core import ComponentSpec, NestedConfig, RoutedConfig, hookimpl


class RouteMatryoshkaConfig(RoutedConfig, NestedConfig):
    """A router takes one layer's vector for each token, and a matryoshka SAE codes it."""


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``route-matryoshka``."""
    return [
        ComponentSpec(
            "sae",
            "route-matryoshka",
            RouteMatryoshkaConfig,
            "qsae_sae_route_matryoshka.model:RouteMatryoshkaSAE",
            default_parts={"activation": {"use": "relu"}, "sparsity": {"use": "batchtopk", "k": 32}},
        )
    ]
