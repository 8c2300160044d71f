"""qsae: train, quantize, evaluate and serve sparse autoencoders and transcoders.

This top module is light (no torch) and holds what a plugin's top module needs; ``load`` imports the
rest when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qsae_core.component import (
    AuxKConfig,
    CoderConfig,
    ComponentConfig,
    ComponentSpec,
    NestedConfig,
    RoutedConfig,
    hookimpl,
    option,
)
from qsae_core.errors import QsaeError

if TYPE_CHECKING:
    import os

    from qsae_core.coder import SparseCoder

__version__ = "0.1.0"
__all__ = [
    "AuxKConfig",
    "CoderConfig",
    "ComponentConfig",
    "ComponentSpec",
    "NestedConfig",
    "QsaeError",
    "RoutedConfig",
    "__version__",
    "hookimpl",
    "load",
    "option",
]


def load(path: str | os.PathLike[str], **options: Any) -> SparseCoder:
    """Load a trained coder, ready to encode and decode; see ``qsae_core.artifact.load``."""
    from qsae_core.artifact import load as load_artifact

    return load_artifact(path, **options)
