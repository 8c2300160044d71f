"""SAE variant ``topk``: exactly k active latents per token, and an auxiliary loss against dead latents."""

from __future__ import annotations

from qsae_core import ComponentSpec, OffsetConfig, RestartConfig, hookimpl


class TopKConfig(RestartConfig, OffsetConfig):
    """TopK SAE (Gao et al., 2024): f = top_k(ReLU(W_enc (x - b_dec) + b_enc)), squared error plus AuxK."""


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``topk``."""
    return [
        ComponentSpec(
            "sae",
            "topk",
            TopKConfig,
            "qsae_sae_topk.model:TopKSAE",
            default_parts={"activation": {"use": "relu"}, "sparsity": {"use": "topk", "k": 32}},
        )
    ]
