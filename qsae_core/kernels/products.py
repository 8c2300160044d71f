"""Products of sparse codes with dense matrices. Shapes: B tokens, F latents, D width, N entries.

Where codes are dense (a ReLU code at the start of training has half of its latents active), a chunk of rows
is scattered and a dense product is faster; ``DENSE_SHARE`` is where the two cross on CPUs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from qsae_core.codes import SparseCodes
from qsae_core.precision import full_precision

DENSE_SHARE = 1 / 16
CHUNK_ENTRIES = 2**25
_MODE_SUM = 0


def rows_per_chunk(n_latents: int) -> int:
    """How many rows of ``[B, F]`` are held at once: at most 128 MB of float32, at least 64 rows."""
    return max(64, CHUNK_ENTRIES // n_latents)


def is_dense(codes: SparseCodes) -> bool:
    """Whether a dense product beats a sparse one for these codes."""
    return codes.indices.numel() > DENSE_SHARE * codes.batch_size * codes.n_latents


@full_precision
def gather_dot(left_BD: Tensor, right_FD: Tensor, codes: SparseCodes) -> Tensor:
    """``[N]``: for each entry (b, j) of the codes, the dot product of ``left[b]`` and ``right[j]``."""
    if is_dense(codes):
        out = left_BD.new_empty(codes.indices.numel())
        for start, stop, rows, latents, place in _chunks(codes):
            out[place] = (left_BD[start:stop] @ right_FD.T)[rows, latents]
        return out
    if codes.indices.numel() == 0:
        return left_BD.new_zeros(0)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        left_BD.contiguous(),
        right_FD.contiguous(),
        codes.indices.long(),
        codes.offsets[:-1],
        codes.rows,
        _MODE_SUM,
    )


@full_precision
def sparse_product(codes: SparseCodes, values: Tensor, right_FD: Tensor) -> Tensor:
    """``[B, D]``: for each token, the sum of ``values`` times the rows of ``right`` that its entries name."""
    if is_dense(codes):
        return torch.cat([dense @ right_FD for _, _, dense in _dense_chunks(codes, values)])
    return F.embedding_bag(
        codes.indices.long(),
        right_FD,
        codes.offsets,
        mode="sum",
        per_sample_weights=values,
        include_last_offset=True,
    )


@full_precision
def transposed_product(codes: SparseCodes, values: Tensor, right_BD: Tensor) -> Tensor:
    """``[F, D]``: for each latent, the sum of ``values`` times the ``right`` rows of the tokens that hold it.

    The (latent, token) pairs are sorted by latent once, so that there are no scatter conflicts.
    """
    if is_dense(codes):
        total = right_BD.new_zeros(codes.n_latents, right_BD.shape[1])
        for start, stop, dense in _dense_chunks(codes, values):
            total.addmm_(dense.T, right_BD[start:stop])
        return total
    order = torch.sort(codes.indices, stable=True).indices
    counts = torch.bincount(codes.indices, minlength=codes.n_latents)
    offsets = torch.zeros(codes.n_latents + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=offsets[1:])
    return F.embedding_bag(
        codes.rows[order],
        right_BD,
        offsets,
        mode="sum",
        per_sample_weights=values[order],
        include_last_offset=True,
    )


def _chunks(codes: SparseCodes) -> Iterator[tuple[int, int, Tensor, Tensor, slice]]:
    """Chunks of tokens: first token, end, the entries' rows within the chunk, their latents, their place."""
    step, all_rows = rows_per_chunk(codes.n_latents), codes.rows
    for start in range(0, codes.batch_size, step):
        stop = min(start + step, codes.batch_size)
        place = slice(int(codes.offsets[start]), int(codes.offsets[stop]))
        yield start, stop, all_rows[place] - start, codes.indices[place].long(), place


def _dense_chunks(codes: SparseCodes, values: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """The codes with other values, as dense ``[rows, F]`` chunks."""
    for start, stop, rows, latents, place in _chunks(codes):
        dense = values.new_zeros(stop - start, codes.n_latents)
        dense[rows, latents] = values[place]
        yield start, stop, dense
