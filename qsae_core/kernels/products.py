"""Products of sparse codes with dense matrices. Shapes: B tokens, F latents, D width, N entries.

Where codes are dense (a ReLU code at the start of training has half of its latents active), a chunk of rows
is scattered and a dense product is faster; ``DENSE_SHARE`` is where the two cross on CPUs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from qsae_core.contracts.codes import SparseCodes
from qsae_core.kernels.dense_rows import collect_rows, expand_rows
from qsae_core.kernels.dispatch import installed, reused, workspace
from qsae_core.kernels.gather_dot import gather_dot
from qsae_core.kernels.precision import full_precision
from qsae_core.kernels.screening import rows_per_chunk
from qsae_core.kernels.sparse_product import sparse_product
from qsae_core.kernels.transpose_codes import transpose_codes

DENSE_SHARE = 1 / 16


def is_dense(codes: SparseCodes) -> bool:
    """Whether a dense product beats a sparse one for these codes."""
    return codes.indices.numel() > DENSE_SHARE * codes.batch_size * codes.n_latents


@full_precision
def entry_dots(left_BD: Tensor, right_FD: Tensor, codes: SparseCodes) -> Tensor:
    """``[N]``: for each entry (b, j) of the codes, the dot product of ``left[b]`` and ``right[j]``."""
    if not is_dense(codes):
        return gather_dot(left_BD.contiguous(), right_FD.contiguous(), codes.indices.int(), codes.offsets)
    out = left_BD.new_empty(codes.indices.numel())
    for start, stop, place, indices, offsets in _chunks(codes):
        dense = workspace("dense codes", (stop - start, codes.n_latents), left_BD)
        torch.mm(left_BD[start:stop], right_FD.T, out=dense)
        out[place] = collect_rows(dense, indices, offsets)
    return out


@full_precision
def weighted_rows(codes: SparseCodes, values: Tensor, right_FD: Tensor) -> Tensor:
    """``[B, D]``: for each token, the sum of ``values`` times the rows of ``right`` that its entries name."""
    if not codes.indices.numel():  # of a part of the dictionary, which may also have no latent
        return right_FD.new_zeros(codes.batch_size, right_FD.shape[1])
    if is_dense(codes):
        return torch.cat([dense @ right_FD for _, _, dense in _dense_chunks(codes, values)])
    return sparse_product(codes.indices.int(), codes.offsets, values.contiguous(), right_FD.contiguous())


@full_precision
def transposed_product(codes: SparseCodes, values: Tensor, right_BD: Tensor) -> Tensor:
    """``[F, D]``: for each latent, the sum of ``values`` times the ``right`` rows of the tokens that hold it.

    The (latent, token) pairs are sorted by latent once for all products of one support, so that there are no
    scatter conflicts.
    """
    if not codes.indices.numel():
        return right_BD.new_zeros(codes.n_latents, right_BD.shape[1])
    if is_dense(codes):
        total = right_BD.new_zeros(codes.n_latents, right_BD.shape[1])
        for start, stop, dense in _dense_chunks(codes, values):
            total.addmm_(dense.T, right_BD[start:stop])
        return total
    tokens, order, offsets = by_latent(codes)
    out_FD = reused((codes.n_latents, right_BD.shape[1]), right_BD) if _writes_out(right_BD) else None
    return sparse_product(tokens, offsets, values[order], right_BD.contiguous(), out_FD)


def _writes_out(like: Tensor) -> bool:
    return installed("sparse_product", like.device.type) and like.dtype == torch.float32


def sums_by_latent(codes: SparseCodes, values: Tensor) -> Tensor:
    """``[F]``: for each latent, the sum of the values of its entries."""
    return values.new_zeros(codes.n_latents).index_add_(0, codes.indices, values)


def by_latent(codes: SparseCodes) -> tuple[Tensor, Tensor, Tensor]:
    """``transpose_codes`` of a support, computed once."""
    if "by_latent" not in codes.memo:
        codes.memo["by_latent"] = transpose_codes(codes.indices.int(), codes.offsets, codes.n_latents)
    found: tuple[Tensor, Tensor, Tensor] = codes.memo["by_latent"]
    return found


def _chunks(codes: SparseCodes) -> Iterator[tuple[int, int, slice, Tensor, Tensor]]:
    """Chunks of tokens: first token, end, their entries' places, and the chunk's own indices and offsets."""
    step = rows_per_chunk(codes.n_latents)
    for start in range(0, codes.batch_size, step):
        stop = min(start + step, codes.batch_size)
        offsets = codes.offsets[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        yield start, stop, slice(first, last), codes.indices[first:last].int(), offsets - first


def _dense_chunks(codes: SparseCodes, values: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """The codes with other values, as dense ``[rows, F]`` chunks; each is gone when the next comes."""
    for start, stop, place, indices, offsets in _chunks(codes):
        dense = workspace("dense codes", (stop - start, codes.n_latents), values)
        yield start, stop, expand_rows(indices, offsets, values[place], dense)
