"""From a dense form to the state dict of the class that computes it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsae_core import NestedConfig
from qsae_core.contracts import Checkpoint, DenseForm
from qsae_core.errors import ArtifactError
from qsae_format_dictionary_learning.classes import BY_THRESHOLD, DICT_CLASSES

NEVER_SET = -1.0
TYPES = {"k": torch.int32, "threshold": torch.float32, "group_sizes": torch.int64}


class Written(NamedTuple):
    """What a checkpoint becomes."""

    dict_class: str
    numbers: dict[str, Any]
    """``k``, ``threshold`` and ``group_sizes``, those that the class has."""
    is_as_read: bool
    """Whether it is of the class that it was read from."""


def choose(checkpoint: Checkpoint, kept: Mapping[str, Any], where: str) -> Written:
    """The class that computes what a checkpoint does: the one that it was read from, where that still does.

    Args:
        kept: what ``dense_form`` gave beside the dense form, or nothing.

    Raises:
        ArtifactError: if the library has no such class.
    """
    dense = checkpoint.dense
    fault = _fault(dense)
    if fault is not None:
        raise ArtifactError(
            f"dictionary_learning has no place for a coder with {fault}",
            where=where,
            allowed=f"what its classes compute: {', '.join(DICT_CLASSES)}",
        )
    as_read = _as_read(dense, kept)
    if as_read is not None:
        return Written(str(kept["dict_class"]), as_read, True)
    if dense.activation == "gated":
        return Written("GatedAutoEncoder", {}, False)
    if dense.activation == "jumprelu":
        return _as_trained(checkpoint) or Written("JumpReluAutoEncoder", {}, False)
    if dense.k is not None:
        return Written("AutoEncoderTopK", {"k": dense.k, "threshold": NEVER_SET}, False)
    return Written("AutoEncoder" if dense.subtracts_b_dec else "AutoEncoderNew", {}, False)


def state_dict(written: Written, dense: DenseForm, kept: Mapping[str, Any]) -> dict[str, Tensor]:
    """Key -> tensor of the class, in the order of its keys."""
    dict_class = DICT_CLASSES[written.dict_class]
    kept = kept if written.is_as_read else {}
    found = dense.with_offset(dict_class.subtracts_b_dec).tensors()
    tensors = {
        key: _own(found[field].T if field in dict_class.transposed else found[field])
        for field, key in dict_class.fields.items()
    }
    for key, value in written.numbers.items():
        is_same = key in kept and kept[key]["value"] == value
        tensors[key] = torch.tensor(
            value, dtype=getattr(torch, kept[key]["dtype"]) if is_same else TYPES[key]
        )
    if kept.get("below_zero"):
        tensors["threshold"] = _with_those_below_zero(tensors["threshold"], kept["below_zero"])
    order = kept["keys"] if set(kept.get("keys", ())) == set(tensors) else dict_class.keys
    return {key: tensors[key] for key in order if key in tensors}


def _as_read(dense: DenseForm, kept: Mapping[str, Any]) -> dict[str, Any] | None:
    """The numbers of the class that a coder was read from; None where it computes something else now."""
    name = kept.get("dict_class")
    if name not in DICT_CLASSES:
        return None
    numbers = {key: kept[key]["value"] for key in DICT_CLASSES[name].numbers if key in kept}
    is_relu = dense.activation == "relu" and dense.k is None
    if name == "AutoEncoderTopK":
        has_k = dense.k is not None
        return (numbers | {"k": dense.k} if "k" in numbers else numbers) if has_k else None
    if name in BY_THRESHOLD:
        if is_relu and numbers["threshold"] < 0:
            return numbers
        threshold = _one_threshold(dense)
        return None if threshold is None else numbers | {"threshold": threshold}
    wanted = {"GatedAutoEncoder": "gated", "JumpReluAutoEncoder": "jumprelu"}.get(name, "relu")
    return numbers if dense.activation == wanted and dense.k is None else None


def _as_trained(checkpoint: Checkpoint) -> Written | None:
    """Of a coder that was trained with k active latents on average, and has one threshold since."""
    threshold, rule = _one_threshold(checkpoint.dense), checkpoint.components.get("sparsity", {})
    k = rule.get("k")
    if threshold is None or rule.get("use") != "batchtopk" or not isinstance(k, int):
        return None
    numbers = {"k": k, "threshold": threshold}
    sae = checkpoint.components.get("sae", {})
    if sae.get("use") != "matryoshka":
        return Written("BatchTopKSAE", numbers, False)
    own = {key: sae[key] for key in ("n_latents", "group_sizes", "group_ratio") if key in sae}
    ends = (0, *NestedConfig.model_validate(own).prefixes())
    groups = [end - start for start, end in itertools.pairwise(ends)]
    return Written("MatryoshkaBatchTopKSAE", numbers | {"group_sizes": groups}, False)


def _one_threshold(dense: DenseForm) -> float | None:
    """Of a jumprelu whose thresholds are all the same."""
    threshold_F = dense.threshold
    if threshold_F is None or dense.k is not None or not bool((threshold_F == threshold_F[0]).all()):
        return None
    return float(threshold_F[0])


def _fault(dense: DenseForm) -> str | None:
    if dense.W_skip is not None:
        return "a skip connection"
    if dense.W_enc.shape[1] != dense.W_dec.shape[1]:
        return f"{dense.W_enc.shape[1]} inputs and {dense.W_dec.shape[1]} outputs"
    if dense.layers > 1:
        return "several layers"
    if dense.activation == "identity":
        return "signed latents"
    if dense.threshold is not None and bool((dense.threshold < 0).any()):
        return "thresholds below 0: it sets negative pre-activations to 0"
    if dense.k is None:
        return None
    if dense.ranks_by_norm:
        return f"the {dense.k} largest latents times the norms of their atoms"
    return None if dense.activation == "relu" else f"the {dense.k} largest latents of a {dense.activation}"


def _with_those_below_zero(threshold_F: Tensor, below: Sequence[Sequence[float]]) -> Tensor:
    """Thresholds that act as 0 as the file had them, where they are 0 still."""
    threshold_F = threshold_F.clone()
    for latent, value in below:
        if latent < len(threshold_F) and threshold_F[int(latent)] == 0:
            threshold_F[int(latent)] = value
    return threshold_F


def _own(tensor: Tensor) -> Tensor:
    """With nothing else in its storage, all of which torch.save would write."""
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor
