"""The tensors of one layer of Gemma Scope 2, and the dense form of an SAE or transcoder.

Shapes: D width of the input, E of the output, F latents.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from qsae_core.contracts import DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import safetensors_tensors
from qsae_format_gemma_scope.config import Type
from qsae_format_gemma_scope.jumprelu import at_least_0, turned

REQUIRED = frozenset({"w_enc", "w_dec", "b_enc", "b_dec", "threshold"})
SKIP = "affine_skip_connection"
ALLOWED = f"the tensors {', '.join(sorted(REQUIRED))}, and {SKIP} of transcoders"


def tensors_of(file: pathlib.Path) -> dict[str, Tensor]:
    """Name -> tensor, views of the file.

    Raises:
        ArtifactError: if it is damaged, or holds others.
    """
    tensors = safetensors_tensors(file)
    missing, others = sorted(REQUIRED - tensors.keys()), sorted(tensors.keys() - REQUIRED - {SKIP})
    if missing or others:
        what = f"there is no tensor {missing[0]}" if missing else f"has the tensor {others[0]!r}, not known"
        raise ArtifactError(what, where=str(file), allowed=ALLOWED)
    return tensors


def dense_form(tensors: Mapping[str, Tensor]) -> DenseForm:
    """``w_enc [D, F]``, ``w_dec [F, E]``, ``affine_skip_connection [D, E]``; not checked yet."""
    return DenseForm(
        W_enc=turned(tensors["w_enc"]),
        b_enc=tensors["b_enc"],
        W_dec=tensors["w_dec"],
        b_dec=tensors["b_dec"],
        activation="jumprelu",
        threshold=at_least_0(tensors["threshold"]),
        W_skip=turned(tensors[SKIP]) if SKIP in tensors else None,
    )


def tensors_for(dense: DenseForm) -> dict[str, Tensor]:
    """What ``dense_form`` takes."""
    assert dense.threshold is not None
    found = {
        "w_enc": turned(dense.W_enc),
        "w_dec": dense.W_dec,
        "b_enc": dense.b_enc,
        "b_dec": dense.b_dec,
        "threshold": dense.threshold,
    }
    found |= {} if dense.W_skip is None else {SKIP: turned(dense.W_skip)}
    return {name: tensor.contiguous() for name, tensor in found.items()}


def kind_of(
    said: Type | None, dense: DenseForm, settings: Mapping[str, Any], where: str
) -> Literal["sae", "transcoder"]:
    """Whether it reconstructs what it encodes: as the settings say, or else as shapes do.

    Raises:
        ArtifactError: if the settings contradict themselves, or the tensors.
    """
    if said in ("crosscoder", "clt"):
        raise ArtifactError(
            f"type is {said!r}, and its tensors are of one layer", where=where, allowed="sae, transcoder"
        )
    source, target = (settings.get(f"hf_hook_point_{side}") for side in ("in", "out"))
    reasons = {
        "it reads and writes other widths": dense.W_enc.shape[1] != dense.W_dec.shape[1],
        "it has a skip connection": dense.W_skip is not None,
        f"it reads {source} and writes {target}": target is not None and source != target,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if said == "sae" and reason is not None:
        raise ArtifactError(f"type is 'sae', and {reason}", where=where, allowed="a transcoder's config.json")
    return "transcoder" if said == "transcoder" or reason is not None else "sae"
