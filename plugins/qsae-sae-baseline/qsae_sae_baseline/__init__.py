"""SAE variant ``baseline``: k active latents per token, a squared error and nothing else."""

from __future__ import annotations

from qsae_core import CoderConfig, ComponentSpec, hookimpl


class BaselineConfig(CoderConfig):
    """Plain TopK SAE: f = top_k(ReLU(W_enc x + b_enc)), x_hat = f W_dec + b_dec, squared error."""


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``baseline``."""
    return [
        ComponentSpec(
            "sae",
            "baseline",
            BaselineConfig,
            "qsae_sae_baseline.model:BaselineSAE",
            default_parts={"activation": {"use": "relu"}, "sparsity": {"use": "topk", "k": 32}},
        )
    ]
