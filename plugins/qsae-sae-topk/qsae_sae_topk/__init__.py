"""SAE variant ``topk``: exactly k active latents per token, and an auxiliary loss against dead latents."""

from __future__ import annotations

from qsae_core import CoderConfig, ComponentSpec, hookimpl, option


class TopKConfig(CoderConfig):
    """TopK SAE (Gao et al., 2024): f = top_k(ReLU(W_enc (x - b_dec) + b_enc)), squared error plus AuxK."""

    auxk_coefficient: float = option(1 / 32, "weight of the auxiliary loss over dead latents; 0: off", ge=0)
    k_aux: int | None = option(None, "dead latents per token in the auxiliary loss; none: d_in / 2", gt=0)


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
