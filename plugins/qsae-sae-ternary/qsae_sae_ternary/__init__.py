"""SAE variant ``ternary``: a TopK SAE whose decoder weights are in {-1, 0, +1} times a scale per atom."""

from __future__ import annotations

from qsae_core import AuxKConfig, ComponentSpec, hookimpl


class TernaryConfig(AuxKConfig):
    """A TopK SAE trained through a ternary decoder: w_hat = scale_j sign(w) 1[|w| >= Delta_j]."""


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``ternary``."""
    return [
        ComponentSpec(
            "sae",
            "ternary",
            TernaryConfig,
            "qsae_sae_ternary.model:TernarySAE",
            default_parts={
                "quantizer": {"use": "ste"},  # ternary and optimally scaled, unless told otherwise
                "encoder_quantizer": {"use": "ste", "n_bits": 4},
                "activation": {"use": "relu"},
                "sparsity": {"use": "topk", "k": 32},
            },
        )
    ]
