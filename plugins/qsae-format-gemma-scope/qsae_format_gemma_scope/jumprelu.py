"""What both formats hold: a JumpReLU coder that subtracts nothing.

    f = max(z, 0) 1[z > threshold],  z = x W_enc + b_enc
    x_hat = f W_dec + b_dec [+ x A]

Shapes: D width of the input, E of the output, F latents.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qsae_core.contracts import DenseForm
from qsae_core.errors import ArtifactError

ALLOWED = "JumpReLU, ReLU, BatchTopK and gated coders, whose latents have thresholds"
NEGATIVE = (
    "some thresholds lie below 0; by the published formula, max(z, 0) where z is above the threshold, they "
    "act as 0, and are read as 0. circuit-tracer lets negative latents pass there"
)


UNKNOWN = (
    "neither settings nor folders say what it is for: it is taken for an SAE. A transcoder is known by the "
    "names under which it was published"
)


def turned(matrix: Tensor) -> Tensor:
    """Rows as columns; anything else as it is, for validation to refuse."""
    return matrix.T if matrix.dim() == 2 else matrix


def at_least_0(threshold_F: Tensor) -> Tensor:
    """Thresholds that do to ``z`` what those of the file do to ``max(z, 0)``."""
    return threshold_F.clamp_min(0) if bool((threshold_F < 0).any()) else threshold_F


def as_jumprelu(dense: DenseForm, where: str) -> DenseForm:
    """The same function as thresholds alone, with nothing subtracted from x.

    Raises:
        ArtifactError: if there is none.
    """
    if dense.k is not None:
        raise homeless(f"the {dense.k} largest latents of a token", where)
    if dense.activation == "identity":
        raise homeless("latents of either sign", where)
    dense = dense.plain() if dense.activation == "gated" else dense.with_offset(False)
    if dense.threshold is None:
        return replace(dense, activation="jumprelu", threshold=torch.zeros_like(dense.b_enc))
    if bool((dense.threshold < 0).any()):
        raise homeless("negative latents, above thresholds below 0", where)
    return dense


def homeless(what: str, where: str) -> ArtifactError:
    """The error for a coder that has no such thresholds."""
    return ArtifactError(f"this format has no place for a coder with {what}", where=where, allowed=ALLOWED)


def width_name(n_latents: int) -> str:
    """As folders are named: 16384 is 16k, 1048576 is 1m."""
    for size, letter in ((10**6, "m"), (10**3, "k")):
        if n_latents >= size:
            return f"{n_latents // size}{letter}"
    return str(n_latents)
