"""Quantizer ``twos-complement``: integers of n bits times a step. Shapes: F rows, D columns, G groups."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import Packed
from qsae_quantizers.blocks import times_scales
from qsae_quantizers.configs import TwosComplementConfig
from qsae_quantizers.float16_scales import from_float16
from qsae_quantizers.grid_quantizer import GridQuantizer
from qsae_quantizers.grids import TwosComplement as Integers


class TwosComplement(GridQuantizer):
    """``w_hat = step (sum_{i < n-1} 2^i b_i - 2^(n-1) b_{n-1})``: the integer nearest to w / step.

    The step has the least squared error, found by search. Stored are the bits themselves, the sign's plane
    first, so that a coder which trains bits keeps what it trained, and the first planes alone are a coarser
    value. Straight-through gradient, zero for weights more than half a step beyond the outermost integers.
    """

    config_class = TwosComplementConfig

    def __init__(self, config: TwosComplementConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape, Integers(config.n_bits))
        self.passes_all = False

    def pass_gradient(
        self, out_RC: Tensor, gradient_RC: Tensor, rows_RC: Tensor, scale_R: Tensor, scratch_RC: Tensor
    ) -> None:
        """``out``, filled with the gradient of what is not clipped."""
        lowest, highest = self._grid.points[0] - 0.5, self._grid.points[-1] + 0.5
        torch.ge(rows_RC, scale_R[:, None] * lowest, out=scratch_RC)
        torch.mul(gradient_RC, scratch_RC, out=out_RC)
        out_RC.mul_(torch.le(rows_RC, scale_R[:, None] * highest, out=scratch_RC))

    def pack_codes(self, codes_FD: Tensor, scale: Tensor) -> Packed:
        """The packed form of integers that were chosen already.

        ``unpack`` gives ``codes * step``, where the step is the scale rounded to float16 (with one power of
        two for the matrix).

        Args:
            codes_FD: integers of n bits.
            scale: float32 ``[F]``, ``[1]`` or ``[F, G]``, as the granularity says; not negative.

        Raises:
            ValueError: if a code has more bits, or the scales are of another shape or negative.
        """
        lowest, highest = int(self._grid.points[0]), int(self._grid.points[-1])
        if codes_FD.is_floating_point() or codes_FD.min() < lowest or codes_FD.max() > highest:
            raise ValueError(f"codes must be integers from {lowest} to {highest}")
        found = self.stored_scales(scale.detach().float().flatten())
        n_rows, expected = codes_FD.shape[0], {"row": codes_FD.shape[0], "tensor": 1}
        size = self.config.group_size
        n_scales = codes_FD.numel() // size if size else expected[self.config.granularity]
        if scale.numel() != n_scales or bool((scale < 0).any()):
            raise ValueError(
                f"{n_rows} rows need {n_scales} scales that are not negative, not {list(scale.shape)}"
            )
        points = codes_FD.to(torch.float32)
        weight = times_scales(points.clone(), from_float16(found.stored, found.exponent))
        return self.packed_points(points, found, weight)
