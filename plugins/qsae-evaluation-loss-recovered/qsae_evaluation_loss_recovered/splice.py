"""Edits that replace the vectors at a site. Shapes: B contexts, T positions, D width, N counted positions."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from qsae_core.contracts import Edit, LanguageModel, SparseCoder, TokenBatch


def coder_edit(coder: SparseCoder, counted_BT: Tensor, rows: int) -> Edit:
    """Replace the vectors at counted positions by the coder's reconstructions, ``rows`` at a time."""

    def edit(vectors_BTD: Tensor) -> Tensor:
        x = vectors_BTD[counted_BT.to(vectors_BTD.device)]
        parts = [coder(part) for part in torch.split(x.to(coder.device, torch.float32), rows)]
        return _replaced(vectors_BTD, counted_BT, torch.cat(parts)) if len(x) else vectors_BTD

    return edit


def constant_edit(vector_D: Tensor, counted_BT: Tensor) -> Edit:
    """Replace the vectors at counted positions by one vector."""
    return lambda vectors_BTD: _replaced(vectors_BTD, counted_BT, vector_D)


def mean_vector(model: LanguageModel, site: tuple[int, str], batches: Iterable[TokenBatch]) -> Tensor | None:
    """float64 ``[D]``: mean of the site's vectors at counted positions; None where there are none."""
    total: Tensor | None = None
    count = 0
    for batch in batches:
        vectors = model.read(batch, [site])[site]
        counted = vectors[batch.counted.to(vectors.device)].to(torch.float64)
        total = counted.sum(0) if total is None else total + counted.sum(0)
        count += len(counted)
    return total / count if total is not None and count else None


def _replaced(vectors_BTD: Tensor, counted_BT: Tensor, values: Tensor) -> Tensor:
    edited = vectors_BTD.clone()
    edited[counted_BT.to(vectors_BTD.device)] = values.to(vectors_BTD)
    return edited
