"""Activations: functions of the pre-activations, before a sparsity rule selects."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl


class ReLUConfig(ComponentConfig):
    """f = max(z, 0): latents are never negative."""


class IdentityConfig(ComponentConfig):
    """f = z: signed latents; the sparsity rule alone decides what stays."""


@hookimpl
def qsae_register_activations() -> list[ComponentSpec]:
    """Register ``relu`` and ``identity``."""
    return [
        ComponentSpec("activation", "relu", ReLUConfig, "qsae_activations.relu:ReLU"),
        ComponentSpec("activation", "identity", IdentityConfig, "qsae_activations.identity:Identity"),
    ]
