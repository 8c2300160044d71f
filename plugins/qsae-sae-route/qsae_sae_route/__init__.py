"""SAE variant ``route``: one SAE over several layers, which chooses the layer of each token."""

from __future__ import annotations

from qsae_core import ComponentSpec, RoutedConfig, hookimpl


class RouteConfig(RoutedConfig):
    """RouteSAE (Shi et al., 2025): a router takes one layer's vector for each token; an SAE codes it."""


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``route``."""
    return [
        ComponentSpec(
            "sae",
            "route",
            RouteConfig,
            "qsae_sae_route.model:RouteSAE",
            default_parts={"activation": {"use": "relu"}, "sparsity": {"use": "topk", "k": 32}},
        )
    ]
