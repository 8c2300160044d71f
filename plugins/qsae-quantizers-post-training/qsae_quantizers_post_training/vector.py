"""The quantizer ``vector``. Shapes: F rows, D columns, R some rows, G parts of a row, K vectors, L long."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.contracts import Calibration, Packed, PackedTensor, Quantizer, straight_through
from qsae_core.errors import ConfigError
from qsae_core.kernels import pack_planes, planes_shape, unpack_planes
from qsae_quantizers_post_training import VectorConfig
from qsae_quantizers_post_training.gptq import calibrated
from qsae_quantizers_post_training.kmeans import kmeans, nearest_centres
from qsae_quantizers_post_training.on_codebook import Vectors, present
from qsae_quantizers_post_training.uniform import finite, rounded

if TYPE_CHECKING:
    from qsae_core.conformance import Case

FITS = 3
LONGEST = 4
"""Columns of a part, unless told."""
LEAST_ENERGY = 0.01
"""Share of the mean energy that is added to each latent's, those that never fire among them."""
ROWS = {"codes": 1, "scales": 0}


class Vector(Quantizer):
    """Each part of a row is the row's scale times a vector of a codebook, which k-means finds."""

    config: VectorConfig
    by_row = True
    packs_by_row = True
    codebook: Tensor

    def __init__(self, config: ComponentConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape)
        self.length = _length(self.config.length, shape[1])
        n_vectors = min(2**self.config.codebook_bits, shape[0] * shape[1] // self.length)
        self.register_buffer("codebook", torch.zeros(n_vectors, self.length, dtype=torch.float32))

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Short and long parts, small and large codebooks."""
        from qsae_core.conformance import Case

        options: list[dict[str, int]] = [{}, {"length": 1, "codebook_bits": 1}]
        options += [{"length": 1, "codebook_bits": 10}, {"length": 4, "codebook_bits": 12}]
        options += [{"length": 8, "codebook_bits": 5}]
        return [Case(chosen) for chosen in options]

    @torch.no_grad()
    def initialize(self, weight_FD: Tensor) -> None:
        """Learn the codebook from the rows, latents of the same energy."""
        self._learn(weight_FD.detach().float(), torch.ones_like(weight_FD[:, 0], dtype=torch.float32))

    @torch.no_grad()
    def calibrate(self, weight_FD: Tensor, calibration: Calibration) -> Tensor:
        """float32 ``[F, D]`` on the grid of a codebook that is learned anew, for these codes.

        A latent's errors weigh its energy ``sum f_j^2``; latents that are rounded later make up for the
        errors of earlier ones, as in ``gptq``, if the options say so.
        """
        codes, weight = calibration.codes.detach(), weight_FD.detach().float()
        energy_F = torch.zeros_like(weight[:, 0])
        energy_F.index_add_(0, codes.indices.long(), codes.values.float().square())
        self._learn(weight, energy_F + LEAST_ENERGY * energy_F.mean())
        if not self.config.compensate:
            return self.fake_quantize(weight)
        return calibrated(weight, self.fake_quantize, self._round, codes, self.config)

    def _round(self, weight_RD: Tensor, rows_R: Tensor) -> Tensor:
        return self._fitted(weight_RD).matrix(self.codebook)

    def _learn(self, weight_FD: Tensor, energy_F: Tensor) -> None:
        scale_F = _root_mean_square(weight_FD)
        rows = weight_FD / torch.where(scale_F == 0, 1, scale_F)[:, None]
        importance_F = _share(energy_F) * _share(scale_F).square()
        importance_N = importance_F.repeat_interleave(weight_FD.shape[1] // self.length)
        parts_NL = rows.view(-1, self.length)
        found = kmeans(parts_NL, importance_N, self.codebook.shape[0], self.config.iterations)
        self.codebook.copy_(rounded(found) + 0.0)  # -0 becomes 0

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """``[F, D]`` on the grid of the codebook as it is; the gradient is the identity."""
        with torch.no_grad():
            found = self._quantized(weight_FD.detach().float())
            quantized = found.matrix(self.codebook).to(weight_FD.dtype)
        return straight_through(weight_FD, quantized)

    @torch.no_grad()
    def pack(self, weight_FD: Tensor) -> Packed:
        """``codes`` (uint8 bit planes ``[bits, F, ceil(G / 8)]``, the highest bit first), ``codebook``
        (bfloat16 ``[K, L]``) and ``scales`` (bfloat16 ``[F]``).

        Raises:
            ArtifactError: if a weight is NaN or infinite.
        """
        found = self._quantized(finite(weight_FD))
        n_bits = _bits(self.codebook.shape[0])
        tensors = {"codes": pack_codes(found.codes, n_bits), "scales": found.scale.bfloat16()}
        tensors["codebook"] = self.codebook.bfloat16()
        return Packed(tensors, (weight_FD.shape[0], weight_FD.shape[1]))

    def unpack(self, packed: Packed) -> Tensor:
        """float32 ``[F, D]``."""
        codebook = packed.tensors["codebook"].float()
        codes = unpack_codes(packed.tensors["codes"], packed.shape[1] // codebook.shape[1])
        return Vectors(codes, packed.tensors["scales"].float()).matrix(codebook)

    def unpack_rows(self, packed: Packed, rows_R: Tensor) -> Tensor:
        """float32 ``[R, D]``: these rows; of the others nothing is read."""
        some = {name: packed.tensors[name].index_select(d, rows_R) for name, d in ROWS.items()}
        return self.unpack(Packed(packed.tensors | some, (rows_R.numel(), packed.shape[1])))

    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """The bit planes of the codes, a scale for each row and the codebook; the first rows of a larger
        matrix have its codebook."""
        n_rows, n_parts = self.shape[0], self.shape[1] // self.length
        codes = PackedTensor(torch.uint8, (None, *planes_shape(1, n_rows, n_parts)[1:]))
        codebook = PackedTensor(torch.bfloat16, (None, self.length))
        return {"codes": codes, "scales": PackedTensor(torch.bfloat16, (n_rows,)), "codebook": codebook}

    def check(self, packed: Packed) -> None:
        """As many planes as the codebook's numbers take, and no number beyond it."""
        super().check(packed)
        codes, n_vectors = packed.tensors["codes"], packed.tensors["codebook"].shape[0]
        most = 2**self.config.codebook_bits
        if not self.codebook.shape[0] <= n_vectors <= most:
            raise ValueError(f"a codebook of {n_vectors} vectors, and the options say up to {most}")
        n_bits = _bits(n_vectors)
        if codes.shape[0] != n_bits:
            raise ValueError(f"{codes.shape[0]} bit planes, and numbers of {n_vectors} vectors take {n_bits}")
        if n_vectors == 2**n_bits or not codes.numel():
            return
        largest = int(unpack_codes(codes, packed.shape[1] // self.length).max())
        if largest >= n_vectors:
            raise ValueError(f"the codebook has no vector {largest}: there are {n_vectors}, from 0 on")

    def row_dims(self, packed: Packed) -> Mapping[str, int]:
        """The second dimension of the bit planes, the first of scales; the codebook belongs to all rows."""
        return ROWS

    def _quantized(self, weight_FD: Tensor) -> Vectors:
        found, found_F = present(weight_FD, self.codebook)
        if not found_F.all():
            for whole, rows in zip(found, self._fitted(weight_FD[~found_F]), strict=True):
                whole[~found_F] = rows
        return found

    def _fitted(self, weight_RD: Tensor) -> Vectors:
        """The best of three rounds of nearest vectors and the scale ``<w, q> / <q, q>``."""
        largest_R = weight_RD.abs().amax(1)
        unit_R = torch.where(largest_R == 0, 1, largest_R)
        rows, error_R = weight_RD / unit_R[:, None], torch.full_like(unit_R, torch.inf)
        scale_R = rounded(_root_mean_square(weight_RD))
        best = Vectors(torch.zeros_like(weight_RD[:, :: self.length], dtype=torch.int64), scale_R.clone())
        for _ in range(FITS):
            steps = weight_RD / torch.where(scale_R == 0, 1, scale_R)[:, None]
            codes = nearest_centres(steps.view(-1, self.length), self.codebook).view(best.codes.shape)
            q = self.codebook[codes].flatten(1)
            slope_R = (rows * q).sum(1) / q.square().sum(1).clamp_min(1e-12)
            scale_R = rounded(slope_R.clamp_min(0) * unit_R)
            now_R = (rows - q * (scale_R / unit_R)[:, None]).square().sum(1)
            better = now_R < error_R
            best.codes[better], best.scale[better] = codes[better], scale_R[better]
            error_R = torch.where(better, now_R, error_R)
        best.codes[best.scale == 0] = 0
        return best


def _bits(n_vectors: int) -> int:
    """Of the numbers of so many vectors."""
    return max(1, (n_vectors - 1).bit_length())


def pack_codes(codes_FG: Tensor, n_bits: int) -> Tensor:
    """uint8 ``[n_bits, F, ceil(G / 8)]``: bit planes of up to 16 bits, the highest bit's first."""
    low = pack_planes(codes_FG & 255, 8)[-n_bits:]
    if n_bits <= 8:
        return low.contiguous()
    return torch.cat([pack_planes(codes_FG >> 8, n_bits - 8), low])


def unpack_codes(planes: Tensor, n_parts: int) -> Tensor:
    """int32 ``[F, G]``: the inverse of ``pack_codes``."""
    low = unpack_planes(planes[-8:], n_parts).int()
    if planes.shape[0] <= 8:
        return low
    return (unpack_planes(planes[:-8], n_parts).int() << 8) | low


def _root_mean_square(weight_RD: Tensor) -> Tensor:
    unit_R = weight_RD.abs().amax(1)
    rows = weight_RD / torch.where(unit_R == 0, 1, unit_R)[:, None]
    return rows.square().mean(1).sqrt() * unit_R


def _share(size_F: Tensor) -> Tensor:
    """Shares of the largest; all the same where that is zero."""
    largest = size_F.max()
    return torch.where(largest > 0, size_F / largest, 1.0)


def _length(length: int | None, width: int) -> int:
    """Columns of a part: the option, else the largest divisor of the width up to 4."""
    divisors = [n for n in range(1, min(width, 16) + 1) if width % n == 0]
    if length is None:
        return max(n for n in divisors if n <= LONGEST)
    if length not in divisors:
        raise ConfigError(
            f"parts of {length} columns do not fill rows of {width}",
            where="length",
            allowed=f"a divisor of the width: {', '.join(map(str, divisors))}",
            next=f"leave length out: the largest divisor up to {LONGEST} is taken then",
        )
    return length
