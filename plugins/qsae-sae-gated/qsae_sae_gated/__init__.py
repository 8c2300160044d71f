"""SAE variant ``gated``: one path decides which latents are active, another how strongly."""

from __future__ import annotations

from qsae_core import ComponentSpec, OffsetConfig, hookimpl


class GatedConfig(OffsetConfig):
    """Gated SAE (Rajamanoharan et al., 2024): gates and magnitudes share W_enc; a term trains gates."""


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``gated``."""
    return [
        ComponentSpec(
            "sae",
            "gated",
            GatedConfig,
            "qsae_sae_gated.model:GatedSAE",
            default_parts={"activation": None, "sparsity": {"use": "l1"}},
            refuses={
                ("sparsity", "l0"): "the gate has no gradient for the number of active latents; its "
                "penalty is on ReLU(pi), which --sparsity l1 weights"
            },
        )
    ]
