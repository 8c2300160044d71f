"""The quantizer ``rtn``. Shapes: F rows, D columns, R some rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qsae_core.component import ComponentConfig
from qsae_core.errors import ArtifactError
from qsae_core.packing import pack_planes, unpack_planes
from qsae_core.quantizer import Lookup, Packed, Quantizer
from qsae_quantizers_post_training import RtnConfig
from qsae_quantizers_post_training.uniform import Uniform


class Rtn(Quantizer):
    """``w_hat = scale_j * point``: the nearest point, at the row's scale of least squared error."""

    config: RtnConfig
    by_row = True

    def __init__(self, config: ComponentConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape)
        self.points = Uniform(self.config.n_bits)

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """``[F, D]`` on the grid; the gradient is the identity."""
        quantized: Tensor = _StraightThrough.apply(weight_FD, self.points)  # type: ignore[no-untyped-call]
        return quantized

    def grid(self) -> Tensor:
        """float ``[G]``: the points."""
        return self.points.points()

    def pack(self, weight_FD: Tensor) -> Packed:
        """``codes`` (uint8 bit planes of ``point + top``) and ``scales`` (bfloat16 ``[F]``).

        Raises:
            ArtifactError: if a weight is NaN or infinite.
        """
        weight = weight_FD.detach().float()
        if not weight.isfinite().all():
            raise ArtifactError("a weight is NaN or infinite", next="train with a lower learning rate")
        scale_F = self.points.scales(weight)
        steps = self.points.round(weight, scale_F) + self.points.top
        codes = pack_planes(steps.to(torch.uint8), self.config.n_bits)
        tensors = {"codes": codes, "scales": scale_F.bfloat16()}
        return Packed(tensors, (weight.shape[0], weight.shape[1]), {"n_bits": self.config.n_bits})

    def unpack(self, packed: Packed) -> Tensor:
        """float32 ``[F, D]``."""
        return self.lookup(packed).matrix()

    def unpack_rows(self, packed: Packed, rows_R: Tensor) -> Tensor:
        """float32 ``[R, D]``: these rows; no other is read."""
        tensors = {name: packed.tensors[name].index_select(d, rows_R) for name, d in ROWS.items()}
        return self.unpack(Packed(tensors, (rows_R.numel(), packed.shape[1]), packed.layout))

    def lookup(self, packed: Packed) -> Lookup:
        """Codes into the points."""
        codes = unpack_planes(packed.tensors["codes"], packed.shape[1])
        points = Uniform(packed.layout["n_bits"]).points().to(codes.device)
        return Lookup(codes, points, packed.tensors["scales"].float())

    def row_dims(self, packed: Packed) -> Mapping[str, int]:
        """The second dimension of the bit planes, the first of the scales."""
        return ROWS


ROWS = {"codes": 1, "scales": 0}


class _StraightThrough(torch.autograd.Function):
    """Forward: the nearest points of each row's grid. Backward: the gradient as it is."""

    @staticmethod
    def forward(ctx: Any, weight_FD: Tensor, points: Uniform) -> Tensor:
        weight = weight_FD.detach().float()
        scale_F = points.scales(weight)
        return (points.round(weight, scale_F) * scale_F[:, None]).to(weight_FD.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
