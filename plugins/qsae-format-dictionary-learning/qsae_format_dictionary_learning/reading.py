"""From a state dict of a known class to a dense form. Shapes: D width, F latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts import DenseForm
from qsae_core.errors import ArtifactError
from qsae_format_dictionary_learning.classes import BY_THRESHOLD, DICT_CLASSES
from qsae_format_dictionary_learning.state import as_read, number, sizes


def dense_form(
    name: str, tensors: Mapping[str, Tensor], k: int | None, where: str
) -> tuple[DenseForm, dict[str, Any]]:
    """What a class computes with these tensors; and, as JSON, what is in them that a dense form does not
    hold: the order of keys, numbers with their types, thresholds below 0.

    Args:
        k: what the configuration says, for files whose tensors do not.

    Raises:
        ArtifactError: if a number is missing, or none.
    """
    dict_class = DICT_CLASSES[name]
    kept: dict[str, Any] = {"dict_class": name, "keys": list(tensors)}
    fields: dict[str, Any] = {}
    for field, key in dict_class.fields.items():
        tensor = tensors[key]
        if field in ("W_enc", "W_dec") and tensor.dim() != 2:
            raise ArtifactError(f"{key} has shape {list(tensor.shape)}, and is no matrix", where=where)
        fields[field] = tensor.T if field in dict_class.transposed else tensor
    n_latents = len(fields["W_enc"])
    for key in dict_class.numbers:
        if key in tensors:
            value = sizes(tensors, n_latents, where) if key == "group_sizes" else number(tensors, key, where)
            kept[key] = as_read(value, tensors[key].dtype)
    if name == "JumpReluAutoEncoder":
        fields["threshold"], kept["below_zero"] = _above_zero(fields["threshold"])
        fields["activation"] = "jumprelu"
    elif name == "GatedAutoEncoder":
        fields["activation"] = "gated"
    elif name in BY_THRESHOLD:
        fields |= _by_threshold(kept, n_latents, where)
    elif name == "AutoEncoderTopK":
        fields["k"] = _checked_k(kept["k"]["value"] if "k" in kept else k, n_latents, where)
    return DenseForm(**fields, subtracts_b_dec=dict_class.subtracts_b_dec), kept


def _above_zero(threshold: Tensor) -> tuple[Tensor, list[list[float]]]:
    """Thresholds as they act: the library takes ``max(z, 0)`` of what is above them, so that those below 0
    act as 0; and these, with their numbers."""
    if threshold.dim() != 1 or not bool((threshold < 0).any()):
        return threshold, []
    below = [[i, float(threshold[i])] for i in (threshold < 0).nonzero().flatten().tolist()]
    return threshold.clamp_min(0), below


def _by_threshold(kept: Mapping[str, Any], n_latents: int, where: str) -> dict[str, Any]:
    """``max(z, 0)`` where that is above the threshold."""
    if "threshold" not in kept:
        raise ArtifactError(
            "it has no threshold: which latents are active depends on the other vectors of a batch",
            where=where,
            next="train it on with a version of the library that keeps one (January 2025 or later)",
        )
    value = float(kept["threshold"]["value"])
    if value < 0:
        return {"activation": "relu"}
    threshold = torch.full((n_latents,), value, dtype=torch.float32)
    if float(threshold[0]) != value:
        raise ArtifactError(f"its threshold {value!r} is no float32", where=where)
    return {"activation": "jumprelu", "threshold": threshold}


def _checked_k(k: Any, n_latents: int, where: str) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n_latents:
        raise ArtifactError(f"k is {k!r}", where=where, allowed=f"a whole number from 1 to {n_latents}")
    return k
