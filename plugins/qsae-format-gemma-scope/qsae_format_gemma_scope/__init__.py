"""Formats ``gemma-scope`` and ``gemma-scope-2``: Google DeepMind's JumpReLU SAEs of Gemma 2 and Gemma 3."""

from qsae_core import ComponentConfig, ComponentSpec, hookimpl


class GemmaScopeConfig(ComponentConfig):
    """Gemma Scope: a params.npz in folders whose names say what it is for."""


class GemmaScope2Config(ComponentConfig):
    """Gemma Scope 2: params.safetensors and config.json; of several layers a file for each."""


@hookimpl
def qsae_register_formats() -> list[ComponentSpec]:
    """Register ``gemma-scope`` and ``gemma-scope-2``."""
    first = "qsae_format_gemma_scope.gemma_scope:GemmaScopeFormat"
    second = "qsae_format_gemma_scope.gemma_scope_2:GemmaScope2Format"
    return [
        ComponentSpec("format", "gemma-scope", GemmaScopeConfig, first),
        ComponentSpec("format", "gemma-scope-2", GemmaScope2Config, second),
    ]
