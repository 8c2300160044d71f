"""The quantizer ``rtn``. Shapes: F rows, D columns, R some rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.contracts import Lookup, Packed, PackedTensor, Quantizer, check_layout, straight_through
from qsae_core.kernels import pack_planes, planes_shape, unpack_planes
from qsae_core.reading import beside, let_go
from qsae_quantizers_post_training import RtnConfig
from qsae_quantizers_post_training.uniform import AT_ONCE, Uniform, finite


class Rtn(Quantizer):
    """``w_hat = scale_j * point``: the nearest point, at the row's scale of least squared error."""

    config: RtnConfig
    by_row = True
    packs_by_row = True

    def __init__(self, config: ComponentConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape)
        self.points = Uniform(self.config.n_bits)

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """``[F, D]`` on the grid; the gradient is the identity."""
        with torch.no_grad():
            quantized = beside(weight_FD.detach())
            for rows, out in zip(weight_FD.detach().split(AT_ONCE), quantized.split(AT_ONCE), strict=True):
                scale_R = self.points.scales(rows.float())
                out.copy_(self.points.round(rows.float(), scale_R).mul_(scale_R[:, None]))
                let_go(rows)
                let_go(out)
        return straight_through(weight_FD, quantized)

    def grid(self) -> Tensor:
        """float ``[G]``: the points."""
        return self.points.points()

    def pack(self, weight_FD: Tensor) -> Packed:
        """``codes`` (uint8 bit planes of ``point + top``) and ``scales`` (bfloat16 ``[F]``).

        Raises:
            ArtifactError: if a weight is NaN or infinite.
        """
        weight = finite(weight_FD)
        scale_F = torch.empty(weight.shape[0], dtype=torch.float32, device=weight.device)
        steps = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
        parts = (tensor.split(AT_ONCE) for tensor in (weight, scale_F, steps))
        for rows, scale_R, out in zip(*parts, strict=True):
            scale_R.copy_(self.points.scales(rows))
            out.copy_(self.points.round(rows, scale_R).add_(self.points.top))
        codes = pack_planes(steps, self.config.n_bits)
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

    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """The bit planes and a scale for each row."""
        codes = PackedTensor(torch.uint8, planes_shape(self.config.n_bits, *self.shape))
        return {"codes": codes, "scales": PackedTensor(torch.bfloat16, self.shape[:1])}

    def check(self, packed: Packed) -> None:
        """As many bits as the options say, and codes that are points."""
        check_layout(packed, ("n_bits",))
        n_bits, codes = packed.layout["n_bits"], packed.tensors["codes"]
        if type(n_bits) is not int or n_bits != self.config.n_bits:
            raise ValueError(f"n_bits {n_bits!r:.80}, and the options say {self.config.n_bits}")
        if self.points.points().numel() == 2**n_bits or not codes.numel():
            return
        # one point less than codes: the one with all bits set is none
        beyond = codes[0].clone()
        for plane in codes[1:]:
            beyond &= plane
        if bool(beyond.any()):
            raise ValueError(f"a code is {2**n_bits - 1}, and there are {2**n_bits - 1} points from 0 on")

    def row_dims(self, packed: Packed) -> Mapping[str, int]:
        """The second dimension of the bit planes, the first of the scales."""
        return ROWS


ROWS = {"codes": 1, "scales": 0}
