"""SAE variant ``crosscoder``: one code for the vectors of several layers."""

from __future__ import annotations

from qsae_core import ComponentSpec, OffsetConfig, RestartConfig, hookimpl


class CrosscoderConfig(RestartConfig, OffsetConfig):
    """Crosscoder (Lindsey et al., 2024): z = sum_l W_enc^l x_l + b_enc, and every layer is decoded from z's
    code."""


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``crosscoder``."""
    return [
        ComponentSpec(
            "sae",
            "crosscoder",
            CrosscoderConfig,
            "qsae_sae_crosscoder.model:Crosscoder",
            default_parts={"activation": {"use": "relu"}, "sparsity": {"use": "topk", "k": 32}},
        )
    ]
