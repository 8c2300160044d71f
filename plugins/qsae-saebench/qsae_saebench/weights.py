"""What a stored coder's encoder is like, latent by latent. Shapes: F latents, D width."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import torch
from torch import Tensor

import qsae_core
from qsae_core.errors import ConfigError
from qsae_core.kernels import full_precision
from qsae_core.measuring import ROWS_AT_ONCE, cosines, unit_rows


class EncoderColumns(NamedTuple):
    """A value for each latent; None where it is not defined."""

    bias: list[float | None]
    norm: list[float | None]
    max_cosine: list[float | None]
    """The largest cosine with another latent's row; of a row of zeros there is none."""


@torch.no_grad()
def encoder_columns(folder: pathlib.Path) -> EncoderColumns | None:
    """Of the rows by which a coder reads the data's own vectors; None where it has no such form.

    Raises:
        ArtifactError: if the coder is damaged.
    """
    coder = qsae_core.load(folder)
    try:
        form = coder.dense().plain()
    except ConfigError:  # several layers, levels, bits: then there is no one encoder row of a latent
        return None
    if form.layers > 1:
        return None
    norms_F = form.W_enc.double().norm(dim=1)
    largest_F = max_cosines(unit_rows(form.W_enc))
    return EncoderColumns(
        bias=list(form.b_enc.tolist()),
        norm=list(norms_F.tolist()),
        max_cosine=[value if norm > 0 else None for value, norm in zip(largest_F, norms_F, strict=True)],
    )


@full_precision
def max_cosines(unit_FD: Tensor) -> list[float | None]:
    """Of each unit row with the other rows, ``ROWS_AT_ONCE`` of them at a time; None where there is no other.

    Which row is nearest is looked for in float32; its cosine is float64.
    """
    n = len(unit_FD)
    if n < 2:
        return [None] * n
    nearest = []
    for start in range(0, n, ROWS_AT_ONCE):
        block = unit_FD[start : start + ROWS_AT_ONCE] @ unit_FD.T
        block.diagonal(start).fill_(-torch.inf)
        nearest.append(block.argmax(1))
    return list(cosines(unit_FD, unit_FD, torch.arange(n), torch.cat(nearest)).tolist())
