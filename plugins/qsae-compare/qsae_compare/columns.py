"""What a comparison shows of each coder."""

from __future__ import annotations

COLUMNS = {
    "bits_decoder": "bits stored per weight of the decoder",
    "bits_encoder": "bits stored per weight of the encoder",
    "bits_whole": "bits on disk per weight, everything counted",
    "bytes": "bytes of the artifact's files",
    "times_smaller": "how many times smaller than the same coder in float32",
    "l0": "active latents per token",
    "bits_per_token": "bits per token of the code, support and values",
    "bits_support": "bits per token of which latents are active",
    "bits_per_value": "bits of an active latent's value; 32 where values are not quantized",
    "fvu": "fraction of variance unexplained",
    "delta_fvu_points": "FVU minus the baseline's, in points (hundredths)",
    "predicted_delta_fvu_points": "kappa times weight error, in points: what rounding alone should add",
    "kappa": "energy that goes through the atoms, as a share of the variance",
    "weight_error": "1 - cos^2 between atoms before and after quantization, weighted by energy",
    "delta_ce": "cross-entropy with the coder in the language model, minus that without, in nats per token",
    "ce_recovered": "share of zero ablation's damage to the cross-entropy that is avoided",
    "dead_fraction": "share of latents that never fire on the held-out data",
}
"""What a row gives, with what it means."""
