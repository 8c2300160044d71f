"""Transcoder ``cross-layer-transcoder``: latents of a layer write into its output and all later ones."""

from __future__ import annotations

from qsae_core import ComponentSpec, RestartConfig, TranscoderConfig, hookimpl


class CrossLayerConfig(RestartConfig, TranscoderConfig):
    """Cross-layer transcoder (Ameisen, Lindsey et al., 2025): f_l = rule(act(W_enc^l x_l + b_enc^l)), and
    y_L = sum_{l <= L} f_l W_dec[l -> L] + b_dec^L. n_latents are those of all layers together, of each
    layer as many."""

    def rule_latents(self, layers_in: int) -> int:
        """Those of a layer."""
        return self.n_latents // layers_in


@hookimpl
def qsae_register_transcoders() -> list[ComponentSpec]:
    """Register ``cross-layer-transcoder``."""
    return [
        ComponentSpec(
            "transcoder",
            "cross-layer-transcoder",
            CrossLayerConfig,
            "qsae_transcoder_cross_layer.model:CrossLayerTranscoder",
            default_parts={"activation": {"use": "relu"}, "sparsity": {"use": "topk", "k": 32}},
        )
    ]
