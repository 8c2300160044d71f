"""SAE variant ``batchtopk``: k active latents per token on average over a batch."""

from __future__ import annotations

from qsae_core import ComponentSpec, OffsetConfig, RestartConfig, hookimpl


class BatchTopKConfig(RestartConfig, OffsetConfig):
    """BatchTopK SAE (Bussmann et al., 2024): the k B largest latents of a batch, squared error plus AuxK."""


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``batchtopk``."""
    return [
        ComponentSpec(
            "sae",
            "batchtopk",
            BatchTopKConfig,
            "qsae_sae_batchtopk.model:BatchTopKSAE",
            default_parts={"activation": {"use": "relu"}, "sparsity": {"use": "batchtopk", "k": 32}},
        )
    ]
