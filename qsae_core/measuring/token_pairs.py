"""Pairs of latents that fire on one token. Shapes: N entries of codes, in the order of tokens."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

AT_ONCE = 1 << 20
"""Pairs that are in memory at once, and those of one token more."""


def entries_by_token(rows_N: Tensor, latents_N: Tensor) -> tuple[Tensor, Tensor]:
    """The same entries by token and, within one, by latent."""
    order = latents_N.argsort(stable=True)
    order = order[rows_N[order].argsort(stable=True)]
    return rows_N[order], latents_N[order]


def whole_tokens(rows_N: Tensor, work_N: Tensor) -> Iterator[slice]:
    """Stretches of entries that hold whole tokens, and about ``AT_ONCE`` of work each.

    Args:
        rows_N: token of each entry, ascending.
        work_N: int64.
    """
    if not len(rows_N):
        return
    before = work_N.cumsum(0) - work_N
    piece = before[torch.searchsorted(rows_N, rows_N)] // AT_ONCE
    cuts = (piece.diff().nonzero().flatten() + 1).tolist()
    for start, end in zip([0, *cuts], [*cuts, len(rows_N)], strict=True):
        yield slice(start, end)


def pairs_of_tokens(
    rows_N: Tensor, latents_N: Tensor, wanted_N: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs ``(i, j)``, ``i < j``, of latents on one token, once for each token; some million at once.

    Args:
        rows_N: token of each entry, ascending.
        wanted_N: bool; pairs of two others are left out, and cost nothing. None: all are wanted.
    """
    if wanted_N is not None:  # those first within their token, so that a pair's first entry is a wanted one
        order = (~wanted_N).to(torch.int8).argsort(stable=True)
        order = order[rows_N[order].argsort(stable=True)]
        rows_N, latents_N, wanted_N = rows_N[order], latents_N[order], wanted_N[order]
    behind_N = torch.searchsorted(rows_N, rows_N, right=True) - torch.arange(len(rows_N)) - 1
    if wanted_N is not None:
        behind_N = behind_N * wanted_N
    for piece in whole_tokens(rows_N, behind_N):
        behind, latents = behind_N[piece], latents_N[piece]
        first = torch.repeat_interleave(torch.arange(len(behind)), behind)
        starts = behind.cumsum(0) - behind
        second = first + 1 + torch.arange(len(first)) - starts[first]
        yield torch.minimum(latents[first], latents[second]), torch.maximum(latents[first], latents[second])
