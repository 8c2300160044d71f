"""The grids: which scale a rule gives, how weights are rounded, how points are packed.

Shapes: R rows, C entries of a row. A point is ``w_hat / scale``; rows of scale 0 are all zeros.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from qsae_core.kernels import (
    pack_planes,
    pack_trits,
    planes_shape,
    ternary_scales,
    trits_shape,
    unpack_planes,
    unpack_trits,
)
from qsae_quantizers import scales


class Grid(abc.ABC):
    """A set of evenly spaced points."""

    name: str
    points: tuple[float, ...]
    """All points, ascending."""
    n_bits: int | None = None
    """Bit planes, of which the first few alone are a coarser grid; None: codes are not read in part."""
    signed: bool = False
    """Whether ``scales`` needs the rows themselves; else it takes their magnitudes."""
    reach: float | None = None
    """Weights beyond ``reach * scale`` are clipped, and get no gradient; None: no weight is."""

    @abc.abstractmethod
    def scales(self, magnitudes_RC: Tensor, rule: str, scratch_RC: Tensor) -> tuple[Tensor, Tensor | None]:
        """``[R]`` scales, and ``[R]`` thresholds where the rule sets its own; may destroy the magnitudes."""

    @abc.abstractmethod
    def round_into(
        self, out_RC: Tensor, rows_RC: Tensor, scale_R: Tensor, threshold_R: Tensor | None, scratch_RC: Tensor
    ) -> Tensor:
        """``out``, filled with the point of each weight."""

    @abc.abstractmethod
    def pack(self, points_RC: Tensor) -> Tensor:
        """uint8 codes of float points."""

    @abc.abstractmethod
    def unpack(self, codes: Tensor, width: int) -> Tensor:
        """float32 ``[R, width]`` points of uint8 codes."""

    largest_byte: int = 255
    """Of the codes."""

    @abc.abstractmethod
    def packed_shape(self, n_rows: int, width: int) -> tuple[int, ...]:
        """Shape of the codes of ``[n_rows, width]`` points."""


class Ternary(Grid):
    """{-1, 0, +1}: five a byte."""

    name = "ternary"
    points = (-1.0, 0.0, 1.0)

    def scales(self, magnitudes_RC: Tensor, rule: str, scratch_RC: Tensor) -> tuple[Tensor, Tensor | None]:
        """Optimal (exact), twn, absmean or absmax; the threshold is half the scale except with twn."""
        if rule == "twn":
            return scales.twn_scale(magnitudes_RC, scratch_RC)
        if rule == "absmean":
            return scales.absmean_ternary_scale(magnitudes_RC), None
        if rule == "absmax":
            return magnitudes_RC.amax(1), None
        return ternary_scales(magnitudes_RC), None

    def round_into(
        self, out_RC: Tensor, rows_RC: Tensor, scale_R: Tensor, threshold_R: Tensor | None, scratch_RC: Tensor
    ) -> Tensor:
        """sign(w) where |w| is above the threshold, else 0 (at the threshold as well)."""
        threshold = (scale_R / 2 if threshold_R is None else threshold_R).where(scale_R != 0, torch.inf)[
            :, None
        ]
        torch.gt(rows_RC, threshold, out=out_RC)
        return out_RC.sub_(torch.lt(rows_RC, -threshold, out=scratch_RC))  # never -0.0

    def pack(self, points_RC: Tensor) -> Tensor:
        """Trits: uint8 ``[R, ceil(C / 5)]``."""
        return pack_trits(points_RC.to(torch.int8))

    def unpack(self, codes: Tensor, width: int) -> Tensor:
        """The points of trits."""
        return unpack_trits(codes, width).float()

    def packed_shape(self, n_rows: int, width: int) -> tuple[int, ...]:
        """Trits."""
        return trits_shape(n_rows, width)

    largest_byte = 3**5 - 1  # of five trits


class Binary(Grid):
    """{-1, +1}: one bit, set for +1."""

    name = "binary"
    points = (-1.0, 1.0)

    def scales(self, magnitudes_RC: Tensor, rule: str, scratch_RC: Tensor) -> tuple[Tensor, Tensor | None]:
        """mean |w|, which is both ``optimal`` and ``absmean``."""
        return magnitudes_RC.mean(1), None

    def round_into(
        self, out_RC: Tensor, rows_RC: Tensor, scale_R: Tensor, threshold_R: Tensor | None, scratch_RC: Tensor
    ) -> Tensor:
        """The sign of w, + for 0 and for rows of scale 0 (so that these never hold -0.0)."""
        cutoff = torch.zeros_like(scale_R).where(scale_R != 0, -torch.inf)[:, None]
        return torch.ge(rows_RC, cutoff, out=out_RC).mul_(2.0).sub_(1.0)

    def pack(self, points_RC: Tensor) -> Tensor:
        """One bit plane: uint8 ``[1, R, ceil(C / 8)]``."""
        return pack_planes((points_RC > 0).to(torch.uint8), 1)

    def unpack(self, codes: Tensor, width: int) -> Tensor:
        """The points of one bit plane."""
        return unpack_planes(codes, width).float().mul_(2.0).sub_(1.0)

    def packed_shape(self, n_rows: int, width: int) -> tuple[int, ...]:
        """One bit plane."""
        return planes_shape(1, n_rows, width)


class Planes(Grid):
    """``q + offset`` for q from -2^(n_bits-1) to 2^(n_bits-1) - 1, q in bit planes.

    Args:
        n_bits: planes that are read.
        dropped: planes of less significant bits that are not read: points then stand for the middle of the
            finer points that share the planes which are, in units of their distance.
    """

    def __init__(self, n_bits: int, dropped: int = 0) -> None:
        self.n_bits, self.dropped = n_bits, dropped
        self.half = 2 ** (n_bits - 1)
        self.offset = self.middle(dropped)
        self.points = tuple(q + self.offset for q in range(-self.half, self.half))

    def packed_shape(self, n_rows: int, width: int) -> tuple[int, ...]:
        """The bit planes."""
        assert self.n_bits is not None
        return planes_shape(self.n_bits, n_rows, width)

    @staticmethod
    @abc.abstractmethod
    def middle(dropped: int) -> float:
        """The offset where so many planes are not read."""

    def coarser(self, level: int) -> Planes:
        """The grid of the first ``level`` planes."""
        return type(self)(level, self.n_bits_in_all - level)

    def coarsen(self, points_RC: Tensor, level: int) -> Tensor:
        """Points of this grid -> points of ``coarser(level)``."""
        assert self.n_bits is not None
        coarse = (points_RC - self.offset).mul_(2.0 ** (level - self.n_bits)).floor_()
        return coarse.add_(self.coarser(level).offset)

    @property
    def n_bits_in_all(self) -> int:
        """Planes of the finest grid."""
        assert self.n_bits is not None
        return self.n_bits + self.dropped


class Uniform(Planes):
    """{q + 1/2}: evenly spaced, symmetric, without a zero (mid-rise); first planes are such a grid again."""

    name = "uniform"

    def __init__(self, n_bits: int, dropped: int = 0) -> None:
        super().__init__(n_bits, dropped)
        self.reach = float(self.half)

    @staticmethod
    def middle(dropped: int) -> float:
        """Always 1/2."""
        return 0.5

    def scales(self, magnitudes_RC: Tensor, rule: str, scratch_RC: Tensor) -> tuple[Tensor, Tensor | None]:
        """The step of least squared error, or the absmax step."""
        assert self.n_bits is not None
        if rule == "absmax":
            return scales.absmax_step(magnitudes_RC, self.n_bits), None
        return scales.uniform_scale(magnitudes_RC, self.n_bits, scratch_RC), None

    def round_into(
        self, out_RC: Tensor, rows_RC: Tensor, scale_R: Tensor, threshold_R: Tensor | None, scratch_RC: Tensor
    ) -> Tensor:
        """The nearest point: floor(w / scale) + 1/2, clipped to the outermost ones."""
        divisor = scale_R.where(scale_R != 0, torch.inf)[:, None]
        return torch.div(rows_RC, divisor, out=out_RC).floor_().clamp_(-self.half, self.half - 1).add_(0.5)

    def pack(self, points_RC: Tensor) -> Tensor:
        """Bit planes of ``q + 2^(n_bits-1)``: uint8 ``[n_bits, R, ceil(C / 8)]``."""
        assert self.n_bits is not None
        return pack_planes((points_RC + (self.half - 0.5)).to(torch.uint8), self.n_bits)

    def unpack(self, codes: Tensor, width: int) -> Tensor:
        """The points of bit planes."""
        return unpack_planes(codes, width).float().sub_(self.half - 0.5)


class TwosComplement(Planes):
    """The integers from -2^(n_bits-1) to 2^(n_bits-1) - 1; first planes stand for the middle of what they
    leave open: 1/2 with one plane dropped, (2^d - 1) / 2^(d+1) with d of them."""

    name = "twos-complement"
    signed = True

    @staticmethod
    def middle(dropped: int) -> float:
        """0 where all planes are read."""
        return (1 - 2.0**-dropped) / 2

    def scales(self, magnitudes_RC: Tensor, rule: str, scratch_RC: Tensor) -> tuple[Tensor, Tensor | None]:
        """The step of least squared error; reads the rows with their signs."""
        assert self.n_bits is not None
        return scales.integer_scale(magnitudes_RC, self.n_bits, scratch_RC), None

    def round_into(
        self, out_RC: Tensor, rows_RC: Tensor, scale_R: Tensor, threshold_R: Tensor | None, scratch_RC: Tensor
    ) -> Tensor:
        """The nearest integer to w / scale, clipped to the outermost ones."""
        divisor = scale_R.where(scale_R != 0, torch.inf)[:, None]
        rounded = torch.div(rows_RC, divisor, out=out_RC).round_().clamp_(-self.half, self.half - 1)
        return rounded.add_(0.0)  # -0.0 becomes 0.0

    def pack(self, points_RC: Tensor) -> Tensor:
        """Bit planes of the integers, the sign's first: uint8 ``[n_bits, R, ceil(C / 8)]``."""
        assert self.n_bits is not None
        bits = points_RC.to(torch.int16).bitwise_and_(2 * self.half - 1)
        return pack_planes(bits.to(torch.uint8), self.n_bits)

    def unpack(self, codes: Tensor, width: int) -> Tensor:
        """The points of bit planes."""
        bits = unpack_planes(codes, width).float()
        return bits.sub_((bits >= self.half) * (2.0 * self.half)).add_(self.offset)


GRIDS: dict[str, type[Grid]] = {kind.name: kind for kind in (Ternary, Binary, Uniform, TwosComplement)}


def grid_of(name: str, n_bits: int | None, dropped: int = 0) -> Grid:
    """The grid that a configuration or a stored layout names."""
    kind = GRIDS[name]
    if issubclass(kind, Planes):
        assert n_bits is not None
        return kind(n_bits, dropped)
    return kind()
