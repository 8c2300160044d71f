"""Format ``circuit-tracer``: per-layer and cross-layer transcoders, as circuit-tracer attributes with them."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl


class CircuitTracerConfig(ComponentConfig):
    """A layer's file, a folder of all layers, or a cross-layer transcoder's folder."""


@hookimpl
def qsae_register_formats() -> list[ComponentSpec]:
    """Register ``circuit-tracer``."""
    target = "qsae_format_circuit_tracer.checkpoint_format:CircuitTracerFormat"
    return [ComponentSpec("format", "circuit-tracer", CircuitTracerConfig, target)]
