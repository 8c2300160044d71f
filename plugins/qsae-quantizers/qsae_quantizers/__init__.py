"""Quantizers: none, and rounding to a ternary, binary or uniform grid with a straight-through gradient."""

from __future__ import annotations

from qsae_core import ComponentSpec, hookimpl
from qsae_quantizers.configs import NoneConfig, SteConfig

__all__ = ["NoneConfig", "SteConfig", "qsae_register_quantizers"]


@hookimpl
def qsae_register_quantizers() -> list[ComponentSpec]:
    """Register every quantizer of this distribution."""
    return [
        ComponentSpec("quantizer", "none", NoneConfig, "qsae_quantizers.none:NoQuantizer"),
        ComponentSpec("quantizer", "ste", SteConfig, "qsae_quantizers.ste:Ste"),
    ]
