"""Transcoder ``transcoder``: one sparse layer that stands for a part of the model."""

from __future__ import annotations

from qsae_core import ComponentSpec, RestartConfig, TranscoderConfig, hookimpl


class SparseTranscoderConfig(TranscoderConfig, RestartConfig):
    """Transcoder (Dunefsky et al., 2024): y_hat = f W_dec + b_dec [+ W_skip x], squared error plus AuxK."""


@hookimpl
def qsae_register_transcoders() -> list[ComponentSpec]:
    """Register ``transcoder``."""
    return [
        ComponentSpec(
            "transcoder",
            "transcoder",
            SparseTranscoderConfig,
            "qsae_transcoder_transcoder.model:SparseTranscoder",
            default_parts={"activation": {"use": "relu"}, "sparsity": {"use": "topk", "k": 32}},
        )
    ]
