"""Rows that are a scale times vectors of a codebook already, and which ones.

Shapes: R rows, D columns, G parts of a row; K vectors of the codebook, L long; N parts, P pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_quantizers_post_training.kmeans import CHUNK
from qsae_quantizers_post_training.uniform import rounded

FACTOR = 0x9E3779B97F4A7C15
"""An odd number whose powers, modulo 2^64, spread bit patterns (2^64 over the golden ratio)."""


class Vectors(NamedTuple):
    """Rows ``w_hat = scale codebook[code]``."""

    codes: Tensor
    """int ``[R, G]``."""
    scale: Tensor
    """float32 ``[R]``, each a bfloat16."""

    def matrix(self, codebook_KL: Tensor) -> Tensor:
        """float32 ``[R, D]``; products of two bfloat16 are exact."""
        return codebook_KL[self.codes].flatten(1) * self.scale[:, None]


def present(weight_RD: Tensor, codebook_KL: Tensor) -> tuple[Vectors, Tensor]:
    """The codes and scales of rows that are on the grid, bit for bit, and which rows these are."""
    n_rows, length = weight_RD.shape[0], codebook_KL.shape[1]
    codes_RG = torch.zeros(n_rows, weight_RD.shape[1] // length, dtype=torch.int64, device=weight_RD.device)
    scale_R = weight_RD.new_zeros(n_rows)
    found_R = (weight_RD == 0).all(1)
    row_P, scale_P = _candidates(weight_RD, codebook_KL)
    rank_P = torch.arange(row_P.numel(), device=row_P.device) - torch.searchsorted(row_P, row_P)
    for rank in range(codebook_KL.shape[0]):
        here = (rank_P == rank) & ~found_R[row_P]
        row, scale = row_P[here], scale_P[here]
        if not row.numel():
            break
        parts_NL = (weight_RD[row] / scale[:, None]).view(-1, length)
        trial = Vectors(_codes_of(parts_NL, codebook_KL).view(len(row), -1), scale)
        same = (trial.matrix(codebook_KL) == weight_RD[row]).all(1)
        codes_RG[row[same]], scale_R[row[same]] = trial.codes[same], scale[same]
        found_R[row[same]] = True
    return Vectors(codes_RG, scale_R), found_R


def _candidates(weight_RD: Tensor, codebook_KL: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, ascending, and scales at which the part of the row's largest entry is in the codebook."""
    length = codebook_KL.shape[1]
    column_R = weight_RD.abs().argmax(1)
    largest_R = weight_RD.gather(1, column_R[:, None])[:, 0]
    part_RL = weight_RD.view(-1, weight_RD.shape[1] // length, length)[
        torch.arange(len(column_R), device=column_R.device), column_R // length
    ]
    divisors = torch.where(codebook_KL == 0, torch.inf, codebook_KL).T
    step, found = max(1, CHUNK // codebook_KL.shape[0]), []
    for first in range(0, len(column_R), step):
        entry_RK = divisors[column_R[first : first + step] % length]
        value_R1 = largest_R[first : first + step, None]
        trial_RK = rounded(value_R1 / entry_RK)
        row, k = ((trial_RK > 0) & (trial_RK * entry_RK == value_R1)).nonzero().unbind(1)
        trial, row = trial_RK[row, k], row + first
        same = (codebook_KL[k] * trial[:, None] == part_RL[row]).all(1)
        found.append(torch.stack([row[same].double(), trial[same].double()], 1).unique(dim=0))
    pairs_P2 = torch.cat(found)
    return pairs_P2[:, 0].long(), pairs_P2[:, 1].float()


def _codes_of(parts_NL: Tensor, codebook_KL: Tensor) -> Tensor:
    """int64 ``[N]``: the number of the vector with these very entries; any number where there is none."""
    keys, order = _keys(codebook_KL).sort()
    place = torch.searchsorted(keys, _keys(parts_NL)).clamp_max_(len(keys) - 1)
    return order[place]


def _keys(vectors_NL: Tensor) -> Tensor:
    """int64 ``[N]``: equal for equal vectors; of others almost never so."""
    powers = [pow(FACTOR, n + 1, 2**64) for n in range(vectors_NL.shape[1])]
    signed = torch.tensor([p - 2**64 if p >= 2**63 else p for p in powers], device=vectors_NL.device)
    bits = (vectors_NL + 0.0).view(torch.int32).long()  # -0 becomes 0
    return (bits * signed).sum(1)
