"""The file of one layer: ``SingleLayerTranscoder`` of circuit-tracer.

    f = activation(W_enc x + b_enc)          relu; z 1[z > threshold]; or z where it is among the k largest
    x_hat = W_dec^T f + b_dec + W_skip x

Shapes: D width of both sides, F latents.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from qsae_core.contracts import Checkpoint, DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import safetensors_tensors
from qsae_format_circuit_tracer.config_file import (
    ACTIVATION,
    CONFIG,
    SERVED,
    SIGNED,
    Beside,
    K,
    provenance_of,
    read_beside,
)

NAME = re.compile(r"layer_(0|[1-9]\d{0,3})\.safetensors")
MATRICES = ("W_enc", "W_dec", "b_enc", "b_dec")
THRESHOLD, W_SKIP = "activation_function.threshold", "W_skip"
OWN_LOADER = (
    "circuit-tracer 0.5.0, and every version that is given a folder on disk, computes ReLU in place of the "
    "{k} largest; load_transcoder_set(..., activation='topk', k={k}) of its main branch computes this"
)


def is_layer(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether tensors of these shapes are a transcoder's, and the encoder is the way round as here."""
    known = {*MATRICES, THRESHOLD, W_SKIP, K}
    if not set(MATRICES) <= shapes.keys() <= known or len(shapes["W_enc"]) != 2:
        return False
    n_latents, d = shapes["W_enc"]
    return (shapes["W_dec"], shapes["b_enc"], shapes["b_dec"]) == ((n_latents, d), (n_latents,), (d,))


def read_layer(path: pathlib.Path) -> Checkpoint:
    """The transcoder of a file.

    Raises:
        ArtifactError: if it is damaged, or its tensors and ``config.yaml`` contradict each other.
    """
    tensors, beside = safetensors_tensors(path), read_beside(path.parent)
    if not is_layer({name: tuple(tensor.shape) for name, tensor in tensors.items()}):
        raise ArtifactError(
            f"its tensors {', '.join(sorted(tensors)) or '(none)'} are not those of a layer",
            where=str(path),
            allowed=f"W_enc and W_dec [F, D], b_enc [F], b_dec [D], perhaps {THRESHOLD}, {W_SKIP} and {K}",
        )
    matrices: dict[str, Any] = {name: tensors[name] for name in MATRICES}
    dense = DenseForm(**matrices, **_rule(tensors, beside, str(path)), W_skip=tensors.get(W_SKIP))
    dense.validate(str(path))
    named = NAME.fullmatch(path.name)
    return Checkpoint(
        dense,
        "transcoder",
        provenance_of(beside.settings, [int(named[1])] if named else []),
        beside.settings,
        (path, *([beside.file] if beside.file else [])),
        components=SIGNED if dense.activation == "jumprelu" else {},
        notes=() if dense.k is None else (OWN_LOADER.format(k=dense.k),),
    )


def _rule(tensors: Mapping[str, Tensor], beside: Beside, where: str) -> dict[str, Any]:
    """Activation, threshold and k of a dense form."""
    word = beside.settings.get(ACTIVATION) if beside.is_config else None
    threshold, k = tensors.get(THRESHOLD), _k(tensors, where)
    if word == "topk":
        if k not in (None, beside.settings[K]):
            fault = f"k is {k} in the file, and {beside.settings[K]} in {CONFIG}"
            raise ArtifactError(fault, where=where, allowed="one k")
        k = beside.settings[K]
    found = "topk" if k is not None else "relu" if threshold is None else "jumprelu"
    if (word or found) != found or (found == "topk" and threshold is not None):
        fault = f"the activation is {word or found}, and the tensors are {', '.join(sorted(tensors))}"
        allowed = f"{THRESHOLD} for jumprelu alone, and {K} for topk alone"
        raise ArtifactError(fault, where=where, allowed=allowed)
    if k is not None:  # the k largest z keep their signs
        return {"activation": "identity", "k": k}
    return {"activation": found} | ({} if threshold is None else {"threshold": threshold})


def _k(tensors: Mapping[str, Tensor], where: str) -> int | None:
    """Of the tensor that ``to_safetensors`` of the main branch writes."""
    if K not in tensors:
        return None
    if tensors[K].dim() or tensors[K].dtype not in (torch.int64, torch.int32):
        raise ArtifactError(f"the tensor {K} is no whole number", where=where, allowed="a single int64")
    return int(tensors[K].item())


def write_layer(checkpoint: Checkpoint, path: pathlib.Path) -> None:
    """A layer's file, with ``k`` in it where there is one.

    Raises:
        ArtifactError: as ``own_form``.
    """
    dense = own_form(checkpoint, str(path))
    save_file(tensors_of(dense) | ({} if dense.k is None else {K: torch.tensor(dense.k)}), path)


def own_form(checkpoint: Checkpoint, where: str) -> DenseForm:
    """A checkpoint's form, written as circuit-tracer computes.

    Raises:
        ArtifactError: if it computes nothing of the kind.
    """
    dense = checkpoint.dense
    dense.validate(where)
    d_in, d_out = dense.W_enc.shape[1], dense.W_dec.shape[1]
    topk = dense.activation == "identity" and dense.k is not None and not dense.ranks_by_norm
    fault = None
    if checkpoint.kind != "transcoder":
        fault = "an SAE: its coders stand in place of MLPs"
    elif d_in != d_out or dense.layers > 1:
        fault = f"a transcoder from {d_in} to {d_out}: both sides have one width"
    elif not topk and (dense.k is not None or dense.activation == "identity"):
        largest = f" of which the {dense.k} largest{' by norm' * dense.ranks_by_norm} stay"
        fault = f"activation {dense.activation}{largest * (dense.k is not None)}"
    if fault is not None:
        raise ArtifactError(
            f"circuit-tracer does not have {fault}",
            where=where,
            allowed="transcoders of one width with relu, with jumprelu (which a trained BatchTopK is), or "
            "with the k largest and activation identity: signs stay there",
            next=f"train with --sparsity batchtopk, or with --activation identity; or {SERVED}"
            if dense.activation == "relu" and dense.k
            else None,
        )
    return (dense.plain() if dense.activation == "gated" else dense).with_offset(False)


def tensors_of(dense: DenseForm) -> dict[str, Tensor]:
    """Name -> tensor of what ``own_form`` gave."""
    named = {
        THRESHOLD if field == "threshold" else field: tensor for field, tensor in dense.tensors().items()
    }
    return {name: tensor.clone().contiguous() for name, tensor in named.items()}
