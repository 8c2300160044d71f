"""Candidates for the largest pre-activations, from a low-precision product.

Shapes: B tokens, C rows of a chunk, F latents, D width, m candidates.

A screen only names candidates: the encoder computes their pre-activations again in float32 and selects among
them. Its quality is its recall, the share of the true selection that is among the candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from qsae_core.errors import ConfigError
from qsae_core.kernels.dispatch import current, operation, workspace
from qsae_core.kernels.top_k import top_k

Kind = Literal["none", "bf16", "int8"]
CHUNK_ENTRIES = 2**25
BLOCK = 64
"""Of so many rows each, blocks of a matrix can be prepared one after the other."""


def candidates_for(kind: Kind, k: int) -> int:
    """How many candidates a screen names for k entries: twice as many in int8, half as many again in bf16.

    On states of a language model with outlier dimensions (SmolLM2-135M, layer 9; topk, F=8192, k=32) int8
    then misses less than one entry in a thousand, none of 2048 where inputs are rotated; bf16 misses none.
    """
    return k + max(8, k if kind == "int8" else k // 2)


class Screen:
    """An encoder matrix prepared for screening.

    Args:
        kind: ``int8`` (rows and tokens rounded to 8 bits, each with a scale) or ``bf16``.
        W_FD: the encoder as it is now, or some of its rows after the others, each time as many, a multiple of
            64, and at most as many at last; the screen keeps a copy of its own.
        n_latents: F, where W comes in blocks.

    Raises:
        ConfigError: for an int8 screen of a matrix that is not on the CPU.
    """

    def __init__(self, kind: Kind, W_FD: Tensor | Iterator[Tensor], n_latents: int = 0) -> None:
        self.kind = kind
        self.prepared: tuple[Tensor, ...] = ()
        if isinstance(W_FD, Tensor):
            self.prepared = self._of(W_FD)
            return
        # put where they stay: parts that are kept between blocks that go would leave memory in pieces
        ends, first = list[int](), None
        for rows_RD in W_FD:
            first = first or len(rows_RD)
            parts, n_blocks = self._of(rows_RD), -(-n_latents // first)
            if not ends:
                self.prepared = tuple(part.new_empty(n_blocks * len(part), *part.shape[1:]) for part in parts)
                ends = [0] * len(parts)
            elif first % BLOCK:
                raise ValueError(f"blocks of a screen are multiples of {BLOCK} rows, the last one excepted")
            for i, (whole, part) in enumerate(zip(self.prepared, parts, strict=True)):
                whole[ends[i] : ends[i] + len(part)] = part
                ends[i] += len(part)
        self.prepared = tuple(whole[:end] for whole, end in zip(self.prepared, ends, strict=True))

    def _of(self, rows_RD: Tensor) -> tuple[Tensor, ...]:
        return (rows_RD.bfloat16(),) if self.kind == "bf16" else self._in_int8(rows_RD.contiguous())

    def _in_int8(self, rows_RD: Tensor) -> tuple[Tensor, ...]:
        if rows_RD.device.type != "cpu":
            raise ConfigError(
                f"an int8 screen runs on the CPU alone, and the coder is on {rows_RD.device.type}",
                where="screen",
                allowed="bf16 or none",
            )
        self._int8 = current("screen", rows_RD)
        prepared: tuple[Tensor, ...] = current("screen_prepare", rows_RD)(rows_RD)
        return prepared

    def candidates(self, x_BD: Tensor, bias_F: Tensor, importance_F: Tensor | None, m: int) -> Tensor:
        """int32 ``[B, m]``: about the m latents of a token with the largest importance * pre-activation."""
        if self.kind == "int8":
            return self._int8(self.prepared, x_BD.contiguous(), bias_F, importance_F, m)
        return _screen_bf16(self.prepared[0], x_BD, bias_F, importance_F, m)


@operation
def screen_prepare(W_FD: Tensor) -> tuple[Tensor, ...]:
    """The int8 form of an encoder for ``screen``; what is in it is the implementation's own business, but for
    this: the forms of blocks of 64 rows, put behind one another, are that of all rows."""
    return _to_int8(W_FD)


@operation
def screen(
    prepared: tuple[Tensor, ...], x_BD: Tensor, bias_F: Tensor, importance_F: Tensor | None, m: int
) -> Tensor:
    """int32 ``[B, m]`` candidates from an int8 product, tokens and rows scaled to their largest entry."""
    codes_FD, scale_F = prepared
    chosen = []
    for rows_CD in x_BD.split(rows_per_chunk(codes_FD.shape[0])):
        tokens_CD, token_scale_C = _to_int8(rows_CD)
        product = chunk_buffer("screen int32", x_BD, codes_FD.shape[0], torch.int32)[: len(rows_CD)]
        torch._int_mm(tokens_CD, codes_FD.T, out=product)
        scores_CF = chunk_buffer("screen float", x_BD, codes_FD.shape[0])[: len(rows_CD)]
        torch.mul(product, scale_F, out=scores_CF)
        scores_CF.mul_(token_scale_C[:, None]).add_(bias_F)
        if importance_F is not None:
            scores_CF.mul_(importance_F)
        chosen.append(top_k(scores_CF, m)[1])
    return torch.cat(chosen)


def _screen_bf16(W_FD: Tensor, x_BD: Tensor, bias_F: Tensor, importance_F: Tensor | None, m: int) -> Tensor:
    chosen = []
    bias_F = bias_F.to(W_FD.dtype)
    for rows_CD in x_BD.split(rows_per_chunk(W_FD.shape[0])):
        scores_CF = chunk_buffer("screen bf16", x_BD, W_FD.shape[0], W_FD.dtype)[: len(rows_CD)]
        torch.addmm(bias_F, rows_CD.to(W_FD.dtype), W_FD.T, out=scores_CF)
        if importance_F is not None:
            scores_CF.mul_(importance_F)
        chosen.append(top_k(scores_CF, m)[1])
    return torch.cat(chosen)


def rows_per_chunk(n_latents: int) -> int:
    """How many rows of ``[B, F]`` are held at once: at most 2^25 entries, at least 64 rows."""
    return max(64, CHUNK_ENTRIES // max(1, n_latents))


def chunk_buffer(name: str, x_BD: Tensor, n_latents: int, dtype: torch.dtype | None = None) -> Tensor:
    """``[C, F]``: a workspace for the largest chunk of x. The last, smaller one takes the same: one of its
    own size would have to be made anew for the next batch."""
    return workspace(name, (min(rows_per_chunk(n_latents), len(x_BD)), n_latents), x_BD, dtype)


def _to_int8(rows_RD: Tensor) -> tuple[Tensor, Tensor]:
    """int8 ``[R, D]`` and float32 ``[R]``: each row over its largest entry, times 127, rounded."""
    largest = rows_RD.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
    scaled = rows_RD * (127 / largest)[:, None]
    return scaled.round_().to(torch.int8), largest / 127
