"""What SAELens does to vectors before it encodes them, and what of that weights can say. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsae_core.errors import ArtifactError

AVERAGE = "expected_average_only_in"
"""Vectors times one number for all tokens, which stands in a table of SAELens and in none of the files."""
_READ = ("none", AVERAGE)
_PER_TOKEN = "divides each vector by a size of its own, and no matrix does that"
_REFUSED: Mapping[str, tuple[str, str]] = {
    "layer_norm": (
        "subtracts from each vector its own mean and divides by its own deviation, and no matrix does that",
        "keep it in SAELens, or store vectors that are normalised so and train or evaluate on these",
    ),
    "constant_norm_rescale": (
        _PER_TOKEN,
        "keep it in SAELens, or store vectors of norm sqrt(d_in) and train or evaluate on these",
    ),
    "constant_scalar_rescale": (
        "is a number of temporal SAEs, which are not read here",
        "keep it in SAELens",
    ),
    "covariance_whitening": (
        "is a training state: it was trained on whitened vectors, and load_from_disk takes plain ones",
        "in SAELens: sae.fold_activation_whitening(mean, matrix, inverse_matrix) with the tensors of "
        "activation_whitening.safetensors beside it, then save_inference_model",
    ),
}
"""Word -> why it is not read, and what to do."""


def check_normalization(word: Any, where: str) -> str:
    """The word, if weights alone say what is computed.

    Raises:
        ArtifactError: with the reason, if they do not, or it is none of SAELens.
    """
    if isinstance(word, str) and word in _READ:
        return word
    reason, further = _REFUSED.get(str(word), ("is none of SAELens", None))
    raise ArtifactError(
        f"normalize_activations {str(word)[:80]!r} {reason}",
        where=where,
        allowed=", ".join(_READ),
        next=further,
    )
