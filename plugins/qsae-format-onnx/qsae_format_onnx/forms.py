"""What a module and a graph need of a form. Shapes: E width of the output, F latents."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import DenseForm, Form
from qsae_core.errors import ArtifactError

ROWS_AT_ONCE = 4096
"""Rows of a matrix that are in float32 at one time, where it is kept in 16 bits."""


def dense_of(form: Form, where: str) -> DenseForm:
    """The form of anything but a cross-layer transcoder, checked.

    Raises:
        ArtifactError: for one, or a form that is none.
    """
    if not isinstance(form, DenseForm):
        raise ArtifactError(
            "it is a cross-layer transcoder, each of whose latents writes into several layers",
            where=where,
            allowed="an SAE, a transcoder or a crosscoder",
            next="qsae export PATH --format circuit-tracer --out DIR writes such transcoders",
        )
    form.validate(where)
    return form


def norms_of(form: DenseForm) -> Tensor | None:
    """float32 ``[F]``: what latents are multiplied with where they are ranked; None where with nothing."""
    if form.k is None or not form.ranks_by_norm:
        return None
    return torch.cat([rows.float().norm(dim=1) for rows in form.W_dec.split(ROWS_AT_ONCE)])
