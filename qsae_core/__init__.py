"""qsae: train, quantize, evaluate and serve sparse autoencoders and transcoders.

This top module is light (no torch) and holds what a plugin's top module needs. ``load``,
``load_set``, ``read_checkpoint``, ``Run`` and ``RunConfig`` are imported when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsae_core.coder_options import (
    AuxKConfig,
    CoderConfig,
    GroupSizes,
    NestedConfig,
    OffsetConfig,
    RestartConfig,
    RoutedConfig,
    TranscoderConfig,
)
from qsae_core.component import ComponentConfig, ComponentSpec, EvaluationConfig, hookimpl, name_of, option
from qsae_core.errors import QsaeError
from qsae_core.lazy import lazily
from qsae_core.places import SITE_NAMES, PlacesConfig

if TYPE_CHECKING:
    from qsae_core.artifact.artifact import load
    from qsae_core.artifact.coder_sets import load_set
    from qsae_core.artifact.imported import read_checkpoint
    from qsae_core.config.run import RunConfig
    from qsae_core.results.run import Run

__version__ = "0.1.0"
__all__ = [
    "SITE_NAMES",
    "AuxKConfig",
    "CoderConfig",
    "ComponentConfig",
    "ComponentSpec",
    "EvaluationConfig",
    "GroupSizes",
    "NestedConfig",
    "OffsetConfig",
    "PlacesConfig",
    "QsaeError",
    "RestartConfig",
    "RoutedConfig",
    "Run",
    "RunConfig",
    "TranscoderConfig",
    "__version__",
    "hookimpl",
    "load",
    "load_set",
    "name_of",
    "option",
    "read_checkpoint",
]

LATER = {
    "Run": "qsae_core.results.run",
    "RunConfig": "qsae_core.config.run",
    "load": "qsae_core.artifact.artifact",
    "load_set": "qsae_core.artifact.coder_sets",
    "read_checkpoint": "qsae_core.artifact.imported",
}
"""What is defined in later rooms -> where."""
__getattr__ = lazily(__name__, LATER)
