"""The quantizer ``nf4``. Shapes: F rows, D columns, G blocks of a row, R blocks, C columns of a block."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.contracts import Lookup, Packed, PackedTensor, Quantizer, straight_through
from qsae_core.errors import ConfigError
from qsae_core.kernels import pack_planes, planes_shape, unpack_planes
from qsae_quantizers_post_training import Nf4Config
from qsae_quantizers_post_training.uniform import finite, rounded

N_BITS = 4
AUTO_BLOCK = 64
CANDIDATES, REFITS = 16, 3
ROWS = {"codes": 1, "scales": 0}


def normal_float() -> Tensor:
    """float32 ``[16]``, ascending: quantiles of the normal distribution, as shares of the largest.

    Seven below zero, zero itself, eight above. Each side's probabilities are evenly spaced up to the same
    largest one, midway between ``1 - 1/32`` and ``1 - 1/30``: the centres of the outermost of 16 and of 15
    equal parts.
    """
    largest = 1 - (1 / 32 + 1 / 30) / 2
    above = torch.special.ndtri(torch.linspace(0.5, largest, 9, dtype=torch.float64))
    below = torch.special.ndtri(torch.linspace(0.5, largest, 8, dtype=torch.float64))
    points = torch.cat([-below[1:].flip(0), above])
    return (points / above[-1]).float()


class Nf4(Quantizer):
    """``w_hat = scale * point``: 16 normal quantiles (Dettmers et al., 2023, QLoRA), a scale per block."""

    config: Nf4Config
    by_row = True
    packs_by_row = True

    def __init__(self, config: ComponentConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape)
        self.block = _block(self.config.block, shape[1])

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """``[F, D]`` on the grid; the gradient is the identity."""
        with torch.no_grad():
            codes, scale_FG = self._quantized(weight_FD.float())
            quantized = Lookup(codes, normal_float().to(codes.device), scale_FG).matrix().to(weight_FD.dtype)
        return straight_through(weight_FD, quantized)

    def grid(self) -> Tensor:
        """float ``[16]``: the points."""
        return normal_float()

    @torch.no_grad()
    def pack(self, weight_FD: Tensor) -> Packed:
        """``codes`` (uint8, 4 bit planes of the point's number) and ``scales`` (bfloat16 ``[F, G]``).

        Raises:
            ArtifactError: if a weight is NaN or infinite.
        """
        codes, scale_FG = self._quantized(finite(weight_FD))
        tensors = {"codes": pack_planes(codes, N_BITS), "scales": scale_FG.bfloat16()}
        return Packed(tensors, (codes.shape[0], codes.shape[1]))

    def unpack(self, packed: Packed) -> Tensor:
        """float32 ``[F, D]``."""
        return self.lookup(packed).matrix()

    def unpack_rows(self, packed: Packed, rows_R: Tensor) -> Tensor:
        """float32 ``[R, D]``: these rows; no other is read."""
        tensors = {name: packed.tensors[name].index_select(d, rows_R) for name, d in ROWS.items()}
        return self.unpack(Packed(tensors, (rows_R.numel(), packed.shape[1])))

    def lookup(self, packed: Packed) -> Lookup:
        """Codes into the points."""
        codes = unpack_planes(packed.tensors["codes"], packed.shape[1])
        return Lookup(codes, normal_float().to(codes.device), packed.tensors["scales"].float())

    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """The four bit planes and a scale for each block."""
        codes = PackedTensor(torch.uint8, planes_shape(N_BITS, *self.shape))
        scales = PackedTensor(torch.bfloat16, (self.shape[0], self.shape[1] // self.block))
        return {"codes": codes, "scales": scales}

    def row_dims(self, packed: Packed) -> Mapping[str, int]:
        """The second dimension of the bit planes, the first of the scales."""
        return ROWS

    def _quantized(self, weight_FD: Tensor) -> tuple[Tensor, Tensor]:
        blocks_RC = weight_FD.reshape(-1, self.block)
        points = normal_float().to(blocks_RC.device)
        scale_R = _scales(blocks_RC, points, self.config.scale)
        codes = nearest(blocks_RC, points, scale_R).to(torch.uint8)
        return codes.view(weight_FD.shape), scale_R.view(weight_FD.shape[0], -1)


def nearest(blocks_RC: Tensor, points: Tensor, scale_R: Tensor) -> Tensor:
    """int ``[R, C]``: the number of the nearest point; of a scale of zero, that of the point zero."""
    steps = blocks_RC / torch.where(scale_R == 0, torch.inf, scale_R)[:, None]
    return torch.bucketize(steps, (points[1:] + points[:-1]) / 2, out_int32=True)


def _scales(blocks_RC: Tensor, points: Tensor, rule: str) -> Tensor:
    """float32 ``[R]``, each a bfloat16; that of a block which is on the grid already is found again."""
    largest_R = blocks_RC.abs().amax(1)
    scale_R = rounded(largest_R) if rule == "absmax" else _least_squares(blocks_RC, points, largest_R)
    open_R = largest_R > 0
    for magnitude in points.abs().unique().flip(0)[:-1].tolist():
        trial_R = rounded(largest_R / magnitude)
        rows = (open_R & (trial_R * magnitude == largest_R)).nonzero().squeeze(1)
        some, trial = blocks_RC[rows], trial_R[rows]
        same = (points[nearest(some, points, trial)] * trial[:, None] == some).all(1)
        scale_R[rows[same]] = trial[same]
        open_R[rows[same]] = False
    return scale_R


def _least_squares(blocks_RC: Tensor, points: Tensor, largest_R: Tensor) -> Tensor:
    unit_R = torch.where(largest_R == 0, 1, largest_R)
    rows = blocks_RC / unit_R[:, None]
    best_R, error_R = torch.zeros_like(unit_R), torch.full_like(unit_R, torch.inf)
    trials = [
        torch.full_like(unit_R, share)
        for share in torch.linspace(0.4, 1, CANDIDATES, dtype=torch.float32).tolist()
    ]
    for i in range(CANDIDATES + REFITS):
        if i >= CANDIDATES:
            q = points[nearest(rows, points, best_R)]
            trials.append((rows * q).sum(1) / q.square().sum(1).clamp_min(1e-6))
        scale_R = rounded(trials[i] * unit_R) / unit_R
        now_R = (rows - points[nearest(rows, points, scale_R)] * scale_R[:, None]).square().sum(1)
        better = now_R < error_R
        best_R, error_R = torch.where(better, scale_R, best_R), torch.where(better, now_R, error_R)
    return rounded(torch.where(largest_R == 0, 0, best_R * unit_R))


def _block(block: int | None, width: int) -> int:
    """Columns per scale: the option, else the divisor nearest 64 from 32 to 128, else the row."""
    divisors = [n for n in range(1, width + 1) if width % n == 0]
    if block is None:
        near = [n for n in divisors if AUTO_BLOCK / 2 <= n <= AUTO_BLOCK * 2]
        return min(near, key=lambda n: abs(n - AUTO_BLOCK)) if near else width
    if block not in divisors:
        raise ConfigError(
            f"blocks of {block} columns do not fill rows of {width}",
            where="block",
            allowed=f"a divisor of the width: {', '.join(map(str, divisors))}",
            next=f"leave block out: a divisor near {AUTO_BLOCK} is taken then, or the whole row",
        )
    return block
