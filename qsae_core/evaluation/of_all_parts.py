"""What is seen of a coder whose latents several processes have in parts. Shapes: B tokens, F latents, N
entries."""

from __future__ import annotations

import torch

from qsae_core.contracts.coder import AtomErrors, SparseCoder
from qsae_core.contracts.codes import SparseCodes, join_latents
from qsae_core.contracts.data import Batch
from qsae_core.contracts.metric import Observation
from qsae_core.kernels import partners


@torch.no_grad()
def observe(coder: SparseCoder, batch: Batch, errors: AtomErrors | None) -> Observation:
    """As ``contracts.metric.observe``: codes and atoms of all parts, in each process. Codes travel, and no
    matrix does.

    Args:
        errors: of all parts.
    """
    codes = coder.encode(batch.x)
    levels = coder.code_levels(codes)
    return Observation(
        coder.target(batch),
        coder.decode(codes),
        joined(codes),
        partners().join(coder.atom_norms()),
        batch.token_ids,
        None if levels is None else joined(codes.with_values(levels)).values,
        errors,
        batch.x,
    )


def atom_errors(errors: AtomErrors | None) -> AtomErrors | None:
    """Of all parts."""
    return None if errors is None else AtomErrors(*(partners().join(tensor) for tensor in errors))


def joined(codes: SparseCodes) -> SparseCodes:
    """The codes of all parts as those of one dictionary; without gradient."""
    counts = partners().each(codes.offsets.diff())
    indices, values = partners().each(codes.indices), partners().each(codes.values)
    parts = []
    for counts_B, indices_N, values_N in zip(counts, indices, values, strict=True):
        offsets = torch.zeros_like(codes.offsets)
        torch.cumsum(counts_B, 0, out=offsets[1:])
        parts.append(SparseCodes(indices_N, values_N, offsets, codes.n_latents))
    return join_latents(parts)
