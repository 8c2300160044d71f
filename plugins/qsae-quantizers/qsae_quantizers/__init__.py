"""Quantizers: weights on a grid in every training step, and their packed form."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl
from qsae_quantizers.configs import (
    DorefaConfig,
    EwgsConfig,
    HalfConfig,
    LsqConfig,
    NoneConfig,
    ResidualBinaryConfig,
    SteConfig,
    StochasticConfig,
    TwosComplementConfig,
)

__all__ = [
    "DorefaConfig",
    "EwgsConfig",
    "HalfConfig",
    "LsqConfig",
    "NoneConfig",
    "ResidualBinaryConfig",
    "SteConfig",
    "StochasticConfig",
    "TwosComplementConfig",
    "qsae_register_quantizers",
]

QUANTIZERS: dict[str, tuple[type[ComponentConfig], str]] = {
    "none": (NoneConfig, "none:NoQuantizer"),
    "half": (HalfConfig, "half:Half"),
    "ste": (SteConfig, "ste:Ste"),
    "lsq": (LsqConfig, "lsq:Lsq"),
    "ewgs": (EwgsConfig, "ewgs:Ewgs"),
    "dorefa": (DorefaConfig, "dorefa:Dorefa"),
    "stochastic": (StochasticConfig, "stochastic:Stochastic"),
    "twos-complement": (TwosComplementConfig, "twos_complement:TwosComplement"),
    "residual-binary": (ResidualBinaryConfig, "residual_binary:ResidualBinary"),
}
"""Name -> options, module and class."""


@hookimpl
def qsae_register_quantizers() -> list[ComponentSpec]:
    """Register every quantizer of this distribution."""
    return [
        ComponentSpec("quantizer", name, config, f"qsae_quantizers.{target}")
        for name, (config, target) in QUANTIZERS.items()
    ]
