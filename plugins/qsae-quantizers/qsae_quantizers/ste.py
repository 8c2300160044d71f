"""Quantizer ``ste``: round to a grid, gradient straight through. Shapes: F rows, D columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from qsae_core.errors import ArtifactError
from qsae_core.parts import Lookup, Packed, Quantizer
from qsae_quantizers import SteConfig
from qsae_quantizers.float16_scales import from_float16, powers_of_two, to_float16
from qsae_quantizers.grids import grid_of

CHUNK = {"cpu": 2**19}
"""Device type -> entries worked on at once: on the CPU what stays in its caches."""
LARGE_CHUNK = 2**26
"""Entries at once on other devices."""
ROWS_AT_ONCE = 4096
"""Packed rows that are unpacked at once to be laid out in another way."""


class Ste(Quantizer):
    """``w_hat = scale * nearest point of w / scale``, with one scale per row (or one for the matrix).

    The scale follows from the weights at every call; nothing is learned here. Scales are rounded to float16
    (with one power of two for the matrix), so that ``unpack(pack(W)) == fake_quantize(W)`` bit for bit.
    Works in float32 and gives the dtype that it was given. A row of zeros stays zero.

    Gradient (Bengio et al., 2013): that of w_hat, handed on to w; zero for weights that a uniform grid clips.
    Ternary and binary grids hand it on for every weight. To cut it off beyond the scale would stop the
    largest weights, 22% (ternary) or 42% (binary) of a Gaussian row: on sparse superpositions that gained 1
    to 5% of the squared error from a float start, and lost 4 to 27% from scratch.
    """

    config: SteConfig

    def __init__(self, config: SteConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape)
        self._grid = grid_of(config.grid, config.n_bits)
        # The scales' common power of two comes from the whole matrix, but changes a row's bits only where its
        # scale is below 2^-28 of the largest.
        self.by_row = config.granularity == "row"

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """``[F, D]`` -> ``[F, D]`` on the grid; applied twice, the same bits as once."""
        quantized: Tensor = _StraightThrough.apply(weight_FD, self)  # type: ignore[no-untyped-call]
        return quantized

    def pack(self, weight_FD: Tensor) -> Packed:
        """``codes`` (uint8: trits, or bit planes from the highest bit down) and ``scales`` (float16 ``[F]``
        or ``[1]``); the layout holds grid, n_bits and the scales' common power of two.

        Raises:
            ArtifactError: if a weight is NaN or infinite.
        """
        weight = weight_FD.detach().float()
        finite = weight.isfinite().all(1)
        if not bool(finite.all()):
            row = int(finite.logical_not().nonzero()[0])
            raise ArtifactError(
                "a matrix with NaN or infinite weights cannot be packed",
                where=f"row {row}",
                next="go back to a checkpoint from before the loss became non-finite",
            )
        stored, exponent, threshold_F = self._scales(weight)
        points = self._points(weight, from_float16(stored, exponent), threshold_F)
        layout = {"grid": self.config.grid, "n_bits": self.config.n_bits, "scale_exponent": exponent}
        tensors = {"codes": self._grid.pack(points), "scales": stored}
        return Packed(tensors, (weight.shape[0], weight.shape[1]), layout)

    def unpack(self, packed: Packed) -> Tensor:
        """float32 ``[F, D]``: what ``fake_quantize`` gave, bit for bit."""
        grid = grid_of(packed.layout["grid"], packed.layout["n_bits"])
        scale = from_float16(packed.tensors["scales"], packed.layout["scale_exponent"])
        return grid.unpack(packed.tensors["codes"], packed.shape[1]).mul_(scale[:, None])

    def unpack_rows(self, packed: Packed, rows_R: Tensor) -> Tensor:
        """float32 ``[R, D]``: these rows of the matrix; no other is read."""
        codes = packed.tensors["codes"]
        some = codes.index_select(
            codes.dim() - 2, rows_R
        )  # bit planes are [bits, F, bytes], trits [F, bytes]
        scale = self._row_scales(packed).index_select(0, rows_R)
        grid = grid_of(packed.layout["grid"], packed.layout["n_bits"])
        return grid.unpack(some, packed.shape[1]).mul_(scale[:, None])

    def lookup(self, packed: Packed) -> Lookup:
        """Codes into the grid's points, ascending."""
        grid = grid_of(packed.layout["grid"], packed.layout["n_bits"])
        stored, (n_rows, width) = packed.tensors["codes"], packed.shape
        points = torch.tensor(grid.points, device=stored.device)
        codes = torch.empty(n_rows, width, dtype=torch.uint8, device=stored.device)
        for start in range(0, n_rows, ROWS_AT_ONCE):  # all three grids are evenly spaced
            some = stored.narrow(stored.dim() - 2, start, min(ROWS_AT_ONCE, n_rows - start))
            steps = grid.unpack(some.contiguous(), width).sub_(points[0])
            codes[start : start + ROWS_AT_ONCE] = steps.div_(points[1] - points[0])
        return Lookup(codes, points, self._row_scales(packed))

    def _row_scales(self, packed: Packed) -> Tensor:
        scale = from_float16(packed.tensors["scales"], packed.layout["scale_exponent"])
        return scale.expand(packed.shape[0]).contiguous()

    def grid(self) -> Tensor:
        """float ``[G]``: the points."""
        return torch.tensor(self._grid.points)

    def quantize(self, weight_FD: Tensor) -> tuple[Tensor, Tensor | None]:
        """``(w_hat, limit)`` without gradient: float32 ``[F, D]``, and the magnitudes beyond which weights
        are clipped, ``[F, 1]`` or ``[1, 1]``, or None where none is.
        """
        weight = weight_FD.detach().float()
        stored, exponent, threshold_F = self._scales(weight)
        scale = from_float16(stored, exponent)
        quantized = self._points(weight, scale, threshold_F, times_scale=True)
        reach = self._grid.reach
        return quantized, None if reach is None else scale[:, None] * reach

    def _scales(self, weight_FD: Tensor) -> tuple[Tensor, int, Tensor | None]:
        """Stored scales, their exponent, and thresholds where the rule sets its own; ``[F]`` or ``[1]``."""
        rows = weight_FD if self.config.granularity == "row" else weight_FD.reshape(1, -1)
        scales, thresholds = [], []
        for start, stop, buffers in _chunks(rows, 2):
            magnitudes = torch.abs(rows[start:stop], out=buffers[0])
            _, exponent = torch.frexp(magnitudes.amax(1))
            exponent = exponent.clamp_(-126, 126)
            magnitudes.mul_(powers_of_two(-exponent)[:, None])
            scale, threshold = self._grid.scales(magnitudes, self.config.scale, buffers[1])
            unit = powers_of_two(exponent)
            scales.append(scale * unit)
            if threshold is not None:
                thresholds.append(threshold * unit)
        stored, shared_exponent = to_float16(torch.cat(scales))
        return stored, shared_exponent, torch.cat(thresholds) if thresholds else None

    def _points(
        self, weight_FD: Tensor, scale: Tensor, threshold: Tensor | None, times_scale: bool = False
    ) -> Tensor:
        """float32 ``[F, D]``: the points, or the points times their scale."""
        n_rows = weight_FD.shape[0]
        scale_F = scale.expand(n_rows)
        threshold_F = None if threshold is None else threshold.expand(n_rows)
        out = torch.empty_like(weight_FD, memory_format=torch.contiguous_format)
        for start, stop, (scratch,) in _chunks(weight_FD, 1):
            some = scale_F[start:stop]
            limit = None if threshold_F is None else threshold_F[start:stop]
            points = self._grid.round_into(out[start:stop], weight_FD[start:stop], some, limit, scratch)
            if times_scale:
                points.mul_(some[:, None])
        return out


class _StraightThrough(torch.autograd.Function):
    """Forward: ``quantizer.quantize``. Backward: the gradient of what was not clipped."""

    @staticmethod
    def forward(ctx: Any, weight_FD: Tensor, quantizer: Ste) -> Tensor:
        quantized, limit = quantizer.quantize(weight_FD)
        ctx.clips = limit is not None
        if ctx.clips:
            ctx.save_for_backward(weight_FD, limit)
        return quantized.to(weight_FD.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient_FD,) = gradients
        if not ctx.clips:
            return gradient_FD, None
        weight_FD, limit = ctx.saved_tensors
        limit_F = limit.expand(weight_FD.shape[0], 1)
        passed = torch.empty_like(gradient_FD, memory_format=torch.contiguous_format)
        for start, stop, (scratch,) in _chunks(weight_FD.detach(), 1):
            inside = torch.le(torch.abs(weight_FD[start:stop], out=scratch), limit_F[start:stop], out=scratch)
            torch.mul(gradient_FD[start:stop], inside, out=passed[start:stop])
        return passed, None


def _chunks(rows_RC: Tensor, n_buffers: int) -> Iterator[tuple[int, int, list[Tensor]]]:
    """``(start, stop, buffers [stop - start, C])`` over the rows; every chunk has the same few buffers."""
    total, width = rows_RC.shape
    entries = CHUNK.get(rows_RC.device.type, LARGE_CHUNK)
    size = max(1, min(total, entries // max(width, 1)))
    buffers = [torch.empty(size, width, dtype=rows_RC.dtype, device=rows_RC.device) for _ in range(n_buffers)]
    for start in range(0, total, size):
        stop = min(start + size, total)
        yield start, stop, [buffer[: stop - start] for buffer in buffers]
