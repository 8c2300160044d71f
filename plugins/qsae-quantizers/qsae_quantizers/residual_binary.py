"""Quantizer ``residual-binary``: sums of sign vectors. Shapes: F rows, D columns, G groups; R blocks."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qsae_core.contracts import Packed, PackedTensor, Quantizer, check_layout, straight_through
from qsae_core.kernels import pack_planes, planes_shape, unpack_planes
from qsae_quantizers.blocks import check_groups, in_blocks, in_rows, scales_shape, times_scales
from qsae_quantizers.configs import ResidualBinaryConfig
from qsae_quantizers.float16_scales import from_float16, powers_of_two, to_float16
from qsae_quantizers.layouts import check_exponent, check_factors
from qsae_quantizers.levels import factors
from qsae_quantizers.sign_sums import best_scales, known_scales, sign_sums, signs_of, spare_scales
from qsae_quantizers.stored import check_finite

if TYPE_CHECKING:
    from qsae_core.conformance import Case

SMALLEST = 2.0**-18
"""Rows whose largest entry is below this share of the matrix's largest become zero: float16 would round
their scales."""


class ResidualBinary(Quantizer):
    """``w_hat = sum_i s_i b_i``, each b_i in {-1, +1}, with n scales per row, group of columns or matrix.

    Scales start evenly spaced and are refitted together by least squares, signs and scales in turn (Guo et
    al., 2017, refine greedy ones, which end worse above two terms). Signs follow from the scales, the largest
    first: b_i is the sign of what the terms before it leave. Scales are stored as float16 with a common power
    of two, and rounded so that no sum of them is: w_hat does not depend on the order of its terms.

    In evaluation mode the scales of every quantized row have to be found again from the row itself, so that
    it is left as it is; the few rows where they are not get evenly spaced scales instead, which always are.
    Training skips that test. The gradient goes straight through, for every weight.
    """

    config: ResidualBinaryConfig

    def __init__(self, config: ResidualBinaryConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape)
        check_groups(config, shape[1])
        self.levels = config.n_bits
        self.shared = config.granularity == "tensor"
        self.by_row = not self.shared

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """One to eight terms, each granularity."""
        from qsae_core.conformance import Case

        cases = [Case({"n_bits": n}) for n in (2, 1, 8)]
        cases.append(Case({"n_bits": 2, "granularity": "tensor"}))
        return [*cases, Case({"n_bits": 4, "granularity": "group", "group_size": 8})]

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """``[F, D]`` -> ``[F, D]``, sums of signs; applied twice, the same bits as once, if evaluating."""
        weight = weight_FD.detach().float()
        scales, exponent = self._scales(weight, check=not self.training)
        quantized = self._sums(weight, from_float16(scales, exponent)).to(weight_FD.dtype)
        if not (torch.is_grad_enabled() and weight_FD.requires_grad):
            return quantized
        return straight_through(weight_FD, quantized)

    def pack(self, weight_FD: Tensor) -> Packed:
        """``codes`` (uint8 bit planes ``[n, F, ceil(D / 8)]``, set for +1, the largest scale's first) and
        ``scales`` (float16 ``[n, F]``, ``[n, 1]`` or ``[n, F, G]``).

        The layout holds the scales' common power of two and what all of them are multiplied by when only the
        first terms are read.

        Raises:
            ArtifactError: if a weight is NaN or infinite.
        """
        weight = weight_FD.detach().float()
        check_finite(weight)
        stored, exponent = self._scales(weight, check=True)
        scales = from_float16(stored, exponent)
        rows = in_rows(weight, self.config)
        signs = signs_of(rows, scales.expand(-1, rows.shape[0])).view(-1, *weight.shape)
        planes = pack_planes(signs.to(torch.uint8), 1)[0]
        n_rows = weight.shape[0]
        shaped = stored if self.config.group_size is None else stored.view(len(stored), n_rows, -1)
        tensors = {"codes": planes, "scales": shaped}
        layout: dict[str, Any] = {"scale_exponent": exponent, "level_scales": [1.0] * self.levels}
        packed = Packed(tensors, (n_rows, weight.shape[1]), layout)
        coarse = (self.unpack(self.at_level(packed, level)) for level in range(1, self.levels))
        return replace(packed, layout=layout | {"level_scales": factors(weight, coarse)})

    def unpack(self, packed: Packed) -> Tensor:
        """float32 ``[F, D]``: what ``fake_quantize`` gave, bit for bit."""
        return _unpacked(packed, packed.tensors["codes"], packed.tensors["scales"])

    def unpack_rows(self, packed: Packed, rows_R: Tensor) -> Tensor:
        """float32 ``[R, D]``: these rows; no other is read."""
        codes, scales = packed.tensors["codes"], packed.tensors["scales"]
        some = scales if scales.shape[1] != packed.shape[0] else scales.index_select(1, rows_R)
        return _unpacked(packed, codes.index_select(1, rows_R), some)

    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """The planes of signs, and as many scales for each row, group or the matrix."""
        n = self.config.n_bits
        codes = PackedTensor(torch.uint8, planes_shape(n, *self.shape))
        scales = PackedTensor(torch.float16, (n, *scales_shape(self.config, self.shape)))
        return {"codes": codes, "scales": scales}

    def check(self, packed: Packed) -> None:
        """A factor for each number of terms, and scales in range."""
        check_layout(packed, ("scale_exponent", "level_scales"))
        check_factors(packed.layout["level_scales"], self.levels)
        check_exponent(packed.layout["scale_exponent"], packed.tensors["scales"])

    def row_dims(self, packed: Packed) -> Mapping[str, int]:
        """The second dimension; scales of the whole matrix have none."""
        dims = {"codes": 1}
        return dims | {"scales": 1} if packed.tensors["scales"].shape[1] == packed.shape[0] else dims

    def level_dims(self, packed: Packed) -> Mapping[str, int]:
        """The terms."""
        return {"codes": 0, "scales": 0}

    def at_level(self, packed: Packed, level: int) -> Packed:
        """The first ``level`` terms, all multiplied by the factor for so many."""
        n_levels = len(packed.layout["level_scales"])
        if not 1 <= level <= n_levels:
            raise ValueError(f"precision {level} of {n_levels}")
        tensors = {name: tensor[:level] for name, tensor in packed.tensors.items()}
        return replace(packed, tensors=tensors)

    def _scales(self, weight_FD: Tensor, check: bool) -> tuple[Tensor, int]:
        """float16 ``[n, R]`` (or ``[n, 1]``) and their power of two."""
        n, shared = self.config.n_bits, self.shared
        rows = in_rows(weight_FD, self.config)
        blocks = in_blocks(weight_FD, self.config)
        _, exponent = torch.frexp(blocks.abs().amax(1))
        exponent = exponent.clamp_(-126, 126)
        rows = rows * powers_of_two(-exponent)[:, None]
        scales = best_scales(rows, n, shared)
        largest = scales.sum(0)
        if check:
            sums = sign_sums(rows, scales.expand(n, rows.shape[0]))
            lost = known_scales(sums, n, shared).isnan().any(0).nonzero().squeeze(1)
            if lost.numel():
                some = rows if shared else rows[lost]
                scales[:, lost] = spare_scales(some, n, shared)
                sums[slice(None) if shared else lost] = sign_sums(
                    some, scales[:, lost].expand(n, some.shape[0])
                )
            # of the sums, not of the scales: other scales may be found again for the same sums
            largest = (sums.reshape(1, -1) if shared else sums).abs().amax(1)
        power = powers_of_two(exponent)
        scales, largest = scales * power, largest * power
        too_small = largest < largest.nan_to_num(0.0).max() * SMALLEST  # not so of NaN, which stays
        return to_float16(scales.where(~too_small, 0.0))

    def _sums(self, weight_FD: Tensor, scales_nR: Tensor) -> Tensor:
        rows = in_rows(weight_FD, self.config)
        return sign_sums(rows, scales_nR.expand(-1, rows.shape[0])).view(weight_FD.shape)


def _unpacked(packed: Packed, codes: Tensor, scales: Tensor) -> Tensor:
    layout, width = packed.layout, packed.shape[1]
    values = from_float16(scales, layout["scale_exponent"], layout["level_scales"][len(codes) - 1])
    total = torch.zeros(codes.shape[1], width, dtype=torch.float32, device=codes.device)
    for plane, scale in zip(codes, values, strict=True):
        signs = unpack_planes(plane[None], width).float().mul_(2.0).sub_(1.0)
        total += times_scales(signs, scale)
    return total
