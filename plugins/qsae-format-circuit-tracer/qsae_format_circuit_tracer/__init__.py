"""Format ``circuit-tracer``: the per-layer and cross-layer transcoders that circuit-tracer attributes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qsae_core import ComponentConfig, ComponentSpec, hookimpl

if TYPE_CHECKING:
    from qsae_core.contracts import Provenance

__all__ = ["FEATURE_INPUT_HOOK", "FEATURE_OUTPUT_HOOK", "CircuitTracerConfig", "layer_of", "stored_hooks"]

FEATURE_INPUT_HOOK, FEATURE_OUTPUT_HOOK = "feature_input_hook", "feature_output_hook"
"""What ``config.yaml`` calls the hooks of what is read and written."""


class CircuitTracerConfig(ComponentConfig):
    """A layer's file, a folder of all layers, or a cross-layer transcoder's folder."""


def layer_of(name: str, provenance: Provenance, where: str) -> int:
    """The layer that a coder of a set reads and writes: by its places, else by its name in the set.

    Raises:
        ArtifactError: if these are several, or no number.
    """
    from qsae_format_circuit_tracer import layer_folder  # torch, when it is needed

    return layer_folder.layer_of(name, provenance, where)


def stored_hooks(sources: Sequence[Mapping[str, Any]], where: str) -> dict[str, Any]:
    """The hooks, and perhaps ``scan``, that ``config.yaml`` says where stored coders are exported: as they
    were imported, else by their places; nothing where those are not known.

    Args:
        sources: the ``source`` of each coder, in the order of layers.

    Raises:
        ArtifactError: if circuit-tracer has no hooks there.
    """
    from qsae_format_circuit_tracer import config_file

    return config_file.stored_hooks(sources, where)


@hookimpl
def qsae_register_formats() -> list[ComponentSpec]:
    """Register ``circuit-tracer``."""
    target = "qsae_format_circuit_tracer.checkpoint_format:CircuitTracerFormat"
    return [ComponentSpec("format", "circuit-tracer", CircuitTracerConfig, target)]
