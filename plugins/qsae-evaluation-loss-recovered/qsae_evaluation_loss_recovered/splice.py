"""Edits that replace the vectors at a site. Shapes: B contexts, T positions, D width, N counted positions."""

from __future__ import annotations

from torch import Tensor

from qsae_core.contracts import Edit


def replacing_edit(vectors_ND: Tensor, counted_BT: Tensor) -> Edit:
    """Replace the vectors at counted positions, in their order, by these."""
    return lambda vectors_BTD: _replaced(vectors_BTD, counted_BT, vectors_ND)


def constant_edit(vector_D: Tensor, counted_BT: Tensor) -> Edit:
    """Replace the vectors at counted positions by one vector."""
    return lambda vectors_BTD: _replaced(vectors_BTD, counted_BT, vector_D)


def _replaced(vectors_BTD: Tensor, counted_BT: Tensor, values: Tensor) -> Tensor:
    edited = vectors_BTD.clone()
    edited[counted_BT.to(vectors_BTD.device)] = values.to(vectors_BTD)
    return edited
