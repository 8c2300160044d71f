"""The quantizer ``hqq``. Shapes: F rows, D columns, R some rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import Packed, PackedTensor, Quantizer, straight_through
from qsae_core.kernels import pack_planes, planes_shape, unpack_planes
from qsae_quantizers_post_training import HqqConfig
from qsae_quantizers_post_training.uniform import finite, rounded

PARTS = 16
"""Zero points are multiples of 1/16: 16 (q - zero) is an integer of at most 16 bits, and its product with a
bfloat16 is exact in float32."""
ROWS = {"codes": 1, "scales": 0, "zeros": 0}
STARTS = (1.0, 0.85, 0.7, 0.55, 0.4)
"""Shares of a row's range that the first scale spans; the best result of them is kept, row by row."""


class Affine(NamedTuple):
    """Rows ``w_hat = scale (q - zero)``."""

    q: Tensor
    """float32 ``[R, D]``, integers from 0."""
    scale: Tensor
    """float32 ``[R]``, each a bfloat16."""
    zeros: Tensor
    """float32 ``[R]``, integers: the zero point in sixteenths."""

    def matrix(self) -> Tensor:
        """float32 ``[R, D]``, exact."""
        return (PARTS * self.q - self.zeros[:, None]) * (self.scale / PARTS)[:, None]


class Hqq(Quantizer):
    """Scale and zero point of each row that minimise ``sum |w - w_hat|^p``, p < 1 (Badri & Shaji, 2023)."""

    config: HqqConfig
    by_row = True
    packs_by_row = True

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """``[F, D]`` on the grid; the gradient is the identity."""
        with torch.no_grad():
            quantized = self._affine(weight_FD.detach().float()).matrix().to(weight_FD.dtype)
        return straight_through(weight_FD, quantized)

    @torch.no_grad()
    def pack(self, weight_FD: Tensor) -> Packed:
        """``codes`` (uint8 bit planes of q), ``scales`` (bfloat16 ``[F]``), ``zeros`` (int16 ``[F]``, 1/16).

        Raises:
            ArtifactError: if a weight is NaN or infinite.
        """
        found = self._affine(finite(weight_FD))
        codes = pack_planes(found.q.to(torch.uint8), self.config.n_bits)
        tensors = {"codes": codes, "scales": found.scale.bfloat16(), "zeros": found.zeros.to(torch.int16)}
        return Packed(tensors, (weight_FD.shape[0], weight_FD.shape[1]))

    def unpack(self, packed: Packed) -> Tensor:
        """float32 ``[F, D]``."""
        q = unpack_planes(packed.tensors["codes"], packed.shape[1]).float()
        return Affine(q, packed.tensors["scales"].float(), packed.tensors["zeros"].float()).matrix()

    def unpack_rows(self, packed: Packed, rows_R: Tensor) -> Tensor:
        """float32 ``[R, D]``: these rows; no other is read."""
        tensors = {name: packed.tensors[name].index_select(d, rows_R) for name, d in ROWS.items()}
        return self.unpack(Packed(tensors, (rows_R.numel(), packed.shape[1])))

    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """The bit planes, and a scale and a zero point for each row."""
        codes = PackedTensor(torch.uint8, planes_shape(self.config.n_bits, *self.shape))
        scales, zeros = (PackedTensor(kind, self.shape[:1]) for kind in (torch.bfloat16, torch.int16))
        return {"codes": codes, "scales": scales, "zeros": zeros}

    def row_dims(self, packed: Packed) -> Mapping[str, int]:
        """The second dimension of the bit planes, the first of scales and zero points."""
        return ROWS

    def _affine(self, weight_FD: Tensor) -> Affine:
        most = 2**self.config.n_bits - 1
        present, found_F = on_grid(weight_FD, most)
        if found_F.all():
            return present
        fitted = fit(weight_FD[~found_F], most, self.config)
        for whole, rows in zip(present, fitted, strict=True):
            whole[~found_F] = rows
        return present


def on_grid(weight_RD: Tensor, most: int) -> tuple[Affine, Tensor]:
    """Rows that are ``scale (q - zero)`` with q up to ``most`` already, and which rows these are."""
    least_R, largest_R = weight_RD.aminmax(dim=1)
    span_R = largest_R - least_R  # exact where the row is on the grid
    q, scale, zeros = torch.zeros_like(weight_RD), least_R.clone(), torch.full_like(span_R, -PARTS)
    found_R = (span_R == 0) & (rounded(least_R) == least_R)  # a constant is scale (0 + 1)
    for steps in range(most, 0, -1):
        trial_R = rounded(span_R / steps)
        rows = (~found_R & (trial_R > 0) & (trial_R * steps == span_R)).nonzero().squeeze(1)
        if not rows.numel():
            continue
        some, trial = weight_RD[rows], trial_R[rows]
        offset = -(PARTS * (least_R[rows] / trial)).round()
        part = Affine(((some - least_R[rows, None]) / trial[:, None]).round(), trial, offset)
        same = (part.matrix() == some).all(1) & (offset.abs() < 2**15)
        rows = rows[same]
        q[rows], scale[rows], zeros[rows] = part.q[same], trial[same], offset[same]
        found_R[rows] = True
    return Affine(q, scale, zeros), found_R


def fit(weight_RD: Tensor, most: int, config: HqqConfig) -> Affine:
    """The best of the starts and iterations, row by row; a row that becomes constant is stored as such."""
    unit_R = weight_RD.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
    rows = weight_RD / unit_R[:, None]
    least_R, largest_R = rows.aminmax(dim=1)
    best_R = torch.full_like(unit_R, torch.inf)
    kept = Affine(torch.zeros_like(rows), torch.ones_like(unit_R), torch.zeros_like(unit_R))
    for share in STARTS:
        scale_R = rounded((largest_R - least_R).clamp_min(1e-4) * share / most * unit_R) / unit_R
        zero_R = most / 2 - (largest_R + least_R) / 2 / scale_R
        for iteration in range(config.iterations):
            trial = _nearest(rows, scale_R, zero_R, most)
            residual = rows - trial.matrix()
            now_R = residual.abs().pow(config.p).sum(1)
            better = now_R < best_R
            best_R = torch.where(better, now_R, best_R)
            for whole, part in zip(kept, trial, strict=True):
                whole[better] = part[better]
            beta = config.beta * config.growth**iteration
            left = shrink(residual / scale_R[:, None], beta, config.p) * scale_R[:, None]
            scale_R, zero_R = _refit(rows - left, trial.q, scale_R)
            scale_R = rounded(scale_R * unit_R) / unit_R
    scale_R = rounded(kept.scale * unit_R)
    return _constant(weight_RD, Affine(kept.q, scale_R, kept.zeros))


def shrink(residual: Tensor, beta: float, p: float) -> Tensor:
    """``sign(x) max(0, |x| - |x|^(p-1) / beta)``: what is left of errors, in steps of the grid."""
    size = residual.abs()
    return residual.sign() * (size - size.clamp_min(1e-6).pow(p - 1) / beta).clamp_min(0)


def _nearest(rows_RD: Tensor, scale_R: Tensor, zero_R: Tensor, most: int) -> Affine:
    zeros = (PARTS * zero_R).round().clamp(-(2**14), 2**14)
    q = (rows_RD / scale_R[:, None] + zeros[:, None] / PARTS).round().clamp(0, most)
    return Affine(q, scale_R, zeros)


def _refit(wanted_RD: Tensor, q_RD: Tensor, scale_R: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero of least squared error for given q: the line through the points (q, wanted)."""
    q_mean, mean = q_RD.mean(1), wanted_RD.mean(1)
    centred = q_RD - q_mean[:, None]
    spread = centred.square().sum(1)
    slope = (centred * wanted_RD).sum(1) / spread.clamp_min(1e-9)
    scale = torch.where((spread > 0) & (slope > 0.05 * scale_R), slope, scale_R)
    return scale, q_mean - mean / scale


def _constant(weight_RD: Tensor, fitted: Affine) -> Affine:
    """The mean for rows whose q are all the same, as ``mean (0 + 1)``."""
    same_R = fitted.q.amax(1) == fitted.q.amin(1)
    zeros = torch.where(same_R, -PARTS, fitted.zeros)
    scale = torch.where(same_R, rounded(weight_RD.mean(1)), fitted.scale)
    return Affine(fitted.q.masked_fill(same_R[:, None], 0), scale, zeros)
