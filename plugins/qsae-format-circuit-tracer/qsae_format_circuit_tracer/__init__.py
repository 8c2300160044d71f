"""Format ``circuit-tracer``: the per-layer and cross-layer transcoders that circuit-tracer attributes to."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl


class CircuitTracerConfig(ComponentConfig):
    """A layer's file, a folder of all layers, or a cross-layer transcoder's folder."""


@hookimpl
def qsae_register_formats() -> list[ComponentSpec]:
    """Register ``circuit-tracer``."""
    target = "qsae_format_circuit_tracer.checkpoint_format:CircuitTracerFormat"
    return [ComponentSpec("format", "circuit-tracer", CircuitTracerConfig, target)]
