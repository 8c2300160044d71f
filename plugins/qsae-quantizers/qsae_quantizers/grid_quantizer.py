"""What all quantizers of the form 'scale times a point of a grid' share: rounding, packing, levels, gradient.

Shapes: F rows, D columns, G groups of columns; R rows of blocks with C entries, which share one scale.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import Lookup, Packed, PackedTensor, Quantizer, check_layout
from qsae_quantizers import levels
from qsae_quantizers.blocks import (
    check_groups,
    chunks,
    in_blocks,
    in_rows,
    scales_shape,
    shaped,
    times_scales,
)
from qsae_quantizers.configs import ScaledConfig
from qsae_quantizers.float16_scales import from_float16, powers_of_two, to_float16
from qsae_quantizers.grids import Grid, Planes
from qsae_quantizers.layouts import check_exponent, check_factors, check_planes
from qsae_quantizers.stored import check_finite, row_scales, stored_grid, stored_scale
from qsae_quantizers.straight_through import StraightThrough

if TYPE_CHECKING:
    from qsae_core.conformance import Case

ROWS_AT_ONCE = 4096
"""Packed rows that are unpacked at once to be laid out in another way."""


class Scales(NamedTuple):
    """The scales of a matrix."""

    stored: Tensor
    """float16 ``[F]``, ``[1]`` or ``[F, G]``: what is to be multiplied by ``2^exponent``."""
    exponent: int
    threshold: Tensor | None = None
    """``[R]``: magnitudes up to which weights become zero, where the scale rule sets its own."""

    @property
    def values_R(self) -> Tensor:
        """float32, one for each row of ``in_blocks``."""
        return from_float16(self.stored.flatten(), self.exponent)


class GridQuantizer(Quantizer):
    """``w_hat = scale * point``: a scale per row, per group of columns or for the matrix; a point of a grid.

    Scales are rounded to float16 (with one power of two for the matrix) before weights are rounded to them,
    so that ``unpack(pack(W)) == fake_quantize(W)`` bit for bit. Works in float32 and gives the dtype that it
    was given. A subclass names the grid, and overrides what it does otherwise: ``quantize``, ``scales``,
    ``source``, ``pass_gradient``.

    Raises:
        ConfigError: if groups of columns do not fill a row.
    """

    config: ScaledConfig
    config_class: ClassVar[type[ScaledConfig]]
    """The class of ``config``."""
    scale_rule: str = "optimal"

    def __init__(self, config: ScaledConfig, shape: tuple[int, int], grid: Grid) -> None:
        super().__init__(config, shape)
        check_groups(config, shape[1])
        self._grid = grid
        self.levels = grid.n_bits or 1
        self.passes_all = grid.reach is None
        # The scales' common power of two comes from the whole matrix, but changes a row's bits only where its
        # scale is below 2^-28 of the largest.
        self.by_row = config.granularity != "tensor"

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Combinations of the options' values, and groups of 8 columns."""
        from qsae_core.conformance import choices

        rows = choices(cls.config_class, granularity="row")[:10]
        grouped = choices(cls.config_class, granularity="group", group_size=8, together=1)
        return rows + choices(cls.config_class, granularity="tensor", together=1)[:3] + grouped[:3]

    # --- quantizing

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """``[F, D]`` -> ``[F, D]`` on the grid; applied twice, the same bits as once."""
        quantized: Tensor = StraightThrough.apply(weight_FD, self)  # type: ignore[no-untyped-call]
        return quantized

    def quantize(self, weight_FD: Tensor) -> tuple[Tensor, Tensor]:
        """``(w_hat, scale)`` without gradient: float32 ``[F, D]``, and what ``Scales.values_R`` gives."""
        weight = weight_FD.detach().float()
        found = self.scales(weight)
        return self.rounded(weight, found, times_scale=True), found.values_R

    def scales(self, weight_FD: Tensor) -> Scales:
        """The scales that the grid's rule gives for float32 weights."""
        rows = in_blocks(weight_FD, self.config)
        scales, thresholds = [], []
        for start, stop, buffers in chunks(rows, 2):
            some = rows[start:stop]
            magnitudes = torch.abs(some, out=buffers[0])
            _, exponent = torch.frexp(magnitudes.amax(1))
            exponent = exponent.clamp_(-126, 126)
            torch.mul(
                some if self._grid.signed else magnitudes, powers_of_two(-exponent)[:, None], out=magnitudes
            )
            scale, threshold = self._grid.scales(magnitudes, self.scale_rule, buffers[1])
            unit = powers_of_two(exponent)
            scales.append(scale * unit)
            if threshold is not None:
                thresholds.append(threshold * unit)
        return self.stored_scales(torch.cat(scales), torch.cat(thresholds) if thresholds else None)

    def stored_scales(self, scale_R: Tensor, threshold_R: Tensor | None = None) -> Scales:
        """float32 scales as they are stored."""
        stored, exponent = to_float16(scale_R)
        return Scales(shaped(stored, self.config, self.shape[1]), exponent, threshold_R)

    def rounded(self, weight_FD: Tensor, scales: Scales, times_scale: bool = False) -> Tensor:
        """float32 ``[F, D]``: the points, or the points times their scale."""
        rows = in_rows(self.source(weight_FD, scales), self.config)
        n_rows, threshold = rows.shape[0], scales.threshold
        scale_R = scales.values_R.expand(n_rows)
        threshold_R = None if threshold is None else threshold.expand(n_rows)
        out = torch.empty_like(rows, memory_format=torch.contiguous_format)
        for start, stop, (scratch,) in chunks(rows, 1):
            some = scale_R[start:stop]
            limit = None if threshold_R is None else threshold_R[start:stop]
            points = self._grid.round_into(out[start:stop], rows[start:stop], some, limit, scratch)
            if times_scale:
                points.mul_(some[:, None])
        return out.view(weight_FD.shape)

    def source(self, weight_FD: Tensor, scales: Scales) -> Tensor:
        """What is rounded to the grid: the weights, unless a method maps them to something else first."""
        return weight_FD

    def gradient(self, gradient_FD: Tensor, weight_FD: Tensor, scale_R: Tensor) -> Tensor:
        """``[F, D]``: the gradient of the weights from that of w_hat, ``pass_gradient`` block by block."""
        rows, gradient = in_rows(weight_FD, self.config), in_rows(gradient_FD, self.config)
        scale_R = scale_R.expand(rows.shape[0])
        passed = torch.empty_like(rows, memory_format=torch.contiguous_format)
        for start, stop, (scratch,) in chunks(rows, 1):
            some = slice(start, stop)
            self.pass_gradient(passed[some], gradient[some], rows[some], scale_R[some], scratch)
        return passed.view(weight_FD.shape)

    def pass_gradient(
        self, out_RC: Tensor, gradient_RC: Tensor, rows_RC: Tensor, scale_R: Tensor, scratch_RC: Tensor
    ) -> None:
        """``out``, filled with the gradient of the weights from that of w_hat: zero for what is clipped."""
        if self._grid.reach is None:
            out_RC.copy_(gradient_RC)
            return
        limit = scale_R[:, None] * self._grid.reach
        inside = torch.le(torch.abs(rows_RC, out=scratch_RC), limit, out=scratch_RC)
        torch.mul(gradient_RC, inside, out=out_RC)

    def grid(self) -> Tensor:
        """float ``[G]``: the points."""
        return torch.tensor(self._grid.points, dtype=torch.float32)

    # --- the packed form

    def pack(self, weight_FD: Tensor) -> Packed:
        """``codes`` (uint8: trits, or bit planes from the highest bit down) and ``scales`` (float16 ``[F]``,
        ``[1]`` or ``[F, G]``).

        The layout holds grid, n_bits, the scales' common power of two and, where there are several bit
        planes, what scales are multiplied by when only the first of them are read.

        Raises:
            ArtifactError: if a weight is NaN or infinite.
        """
        weight = weight_FD.detach().float()
        check_finite(weight)
        found = self.scales(weight)
        return self.packed_points(self.rounded(weight, found), found, weight)

    def packed_points(self, points_FD: Tensor, scales: Scales, weight_FD: Tensor) -> Packed:
        """The packed form of points that were chosen already.

        Args:
            weight_FD: float32; what the points stand for, for the scales of lower levels.
        """
        layout: dict[str, Any] = {"grid": self._grid.name, "n_bits": self._grid.n_bits}
        layout["scale_exponent"] = scales.exponent
        if self.levels > 1:
            assert isinstance(self._grid, Planes)
            scale = from_float16(scales.stored, scales.exponent)
            layout["level_scales"] = levels.level_scales(self._grid, points_FD, scale, weight_FD)
        tensors = {"codes": self._grid.pack(points_FD), "scales": scales.stored}
        return Packed(tensors, (points_FD.shape[0], points_FD.shape[1]), layout)

    def unpack(self, packed: Packed) -> Tensor:
        """float32 ``[F, D]``: what ``fake_quantize`` gave, bit for bit."""
        points = stored_grid(packed).unpack(packed.tensors["codes"], packed.shape[1])
        return times_scales(points, stored_scale(packed))

    def unpack_rows(self, packed: Packed, rows_R: Tensor) -> Tensor:
        """float32 ``[R, D]``: these rows of the matrix; no other is read."""
        codes = packed.tensors["codes"]
        some = codes.index_select(codes.dim() - 2, rows_R)  # bit planes [bits, F, bytes], trits [F, bytes]
        points = stored_grid(packed).unpack(some, packed.shape[1])
        return times_scales(points, row_scales(packed).index_select(0, rows_R))

    def lookup(self, packed: Packed) -> Lookup:
        """Codes into the grid's points, ascending."""
        grid = stored_grid(packed)
        stored, (n_rows, width) = packed.tensors["codes"], packed.shape
        points = torch.tensor(grid.points, dtype=torch.float32, device=stored.device)
        codes = torch.empty(n_rows, width, dtype=torch.uint8, device=stored.device)
        for start in range(0, n_rows, ROWS_AT_ONCE):  # all grids are evenly spaced
            some = stored.narrow(stored.dim() - 2, start, min(ROWS_AT_ONCE, n_rows - start))
            steps = grid.unpack(some.contiguous(), width).sub_(points[0])
            codes[start : start + ROWS_AT_ONCE] = steps.div_(points[1] - points[0])
        return Lookup(codes, points, row_scales(packed))

    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """The codes of the grid, and the scales."""
        codes = PackedTensor(torch.uint8, self._grid.packed_shape(*self.shape))
        return {"codes": codes, "scales": PackedTensor(torch.float16, scales_shape(self.config, self.shape))}

    def check(self, packed: Packed) -> None:
        """The grid that the options name, as many bit planes, codes that are points, scales in range."""
        levelled = ["level_scales"] if self.levels > 1 else []
        check_layout(packed, ["grid", "n_bits", "scale_exponent", *levelled])
        grid, n_bits = packed.layout["grid"], packed.layout["n_bits"]
        if grid != self._grid.name:
            raise ValueError(f"the grid {grid!r:.80}, and the options say {self._grid.name}")
        codes = packed.tensors["codes"]
        if levelled:  # fewer where a coder was read at a lower level
            check_planes(n_bits, codes.shape[0], self.levels)
            check_factors(packed.layout["level_scales"], self.levels)
        elif n_bits != self._grid.n_bits or isinstance(n_bits, bool):
            raise ValueError(f"n_bits {n_bits!r:.80}, and the options say {self._grid.n_bits}")
        if codes.numel() and int(codes.max()) > self._grid.largest_byte:
            raise ValueError(f"the byte {int(codes.max())} of the codes is none of the grid's points")
        check_exponent(packed.layout["scale_exponent"], packed.tensors["scales"])

    def row_dims(self, packed: Packed) -> Mapping[str, int]:
        """The last dimension but one of the codes; the first of the scales, unless one serves the matrix."""
        codes, scales = packed.tensors["codes"], packed.tensors["scales"]
        dims = {"codes": codes.dim() - 2}
        return dims | {"scales": 0} if scales.shape[0] == packed.shape[0] else dims

    def level_dims(self, packed: Packed) -> Mapping[str, int]:
        """The planes of the codes, where there are several."""
        return {"codes": 0} if "level_scales" in packed.layout else {}

    def at_level(self, packed: Packed, level: int) -> Packed:
        """The first ``level`` bit planes, with the scales' factor for so many."""
        n_levels = packed.layout["n_bits"] if "level_scales" in packed.layout else 1
        if not 1 <= level <= n_levels:
            raise ValueError(f"precision {level} of {n_levels}")
        if n_levels == 1:
            return packed
        tensors = packed.tensors | {"codes": packed.tensors["codes"][:level]}
        return replace(packed, tensors=tensors, layout=packed.layout | {"n_bits": level})
