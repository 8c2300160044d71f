"""Format ``sparsify``: ``cfg.json`` and ``sae.safetensors`` of EleutherAI's sparsify."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl


class SparsifyConfig(ComponentConfig):
    """TopK SAEs and transcoders of EleutherAI's sparsify, one for each hookpoint of a model."""


@hookimpl
def qsae_register_formats() -> list[ComponentSpec]:
    """Register ``sparsify``."""
    target = "qsae_format_sparsify.checkpoint_format:SparsifyFormat"
    return [ComponentSpec("format", "sparsify", SparsifyConfig, target)]
