"""Edits that replace the vectors at a site. Shapes: B contexts, T positions, D width, N counted positions."""

from __future__ import annotations

from torch import Tensor

from qsae_core.contracts import Edit, Site


def replacing_edit(vectors_ND: Tensor, counted_BT: Tensor, source: Site, target: Site) -> Edit:
    """At ``target``: replace the vectors at counted positions, in their order, by these, which were made of
    the vectors at ``source``.

    So the source has to be computed before the target, where the two are not the same.
    """
    reads = () if source == target else (source,)
    return Edit(lambda vectors_BTD, _: _replaced(vectors_BTD, counted_BT, vectors_ND), reads)


def constant_edit(vector_D: Tensor, counted_BT: Tensor) -> Edit:
    """Replace the vectors at counted positions by one vector."""
    return Edit(lambda vectors_BTD, _: _replaced(vectors_BTD, counted_BT, vector_D))


def _replaced(vectors_BTD: Tensor, counted_BT: Tensor, values: Tensor) -> Tensor:
    edited = vectors_BTD.clone()
    edited[counted_BT.to(vectors_BTD.device)] = values.to(vectors_BTD)
    return edited
