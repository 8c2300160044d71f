"""Quantizer ``none``: the identity. Shapes: F rows, D columns."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qsae_core.contracts import Packed, PackedTensor, Quantizer


class NoQuantizer(Quantizer):
    """Leaves weights as they are; the packed form is the float32 matrix."""

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """The very tensor that came in."""
        return weight_FD

    def pack(self, weight_FD: Tensor) -> Packed:
        """``{"weight": float32 [F, D]}``, the very tensor that came in, where it is float32."""
        weight = weight_FD.detach().float()
        return Packed({"weight": weight}, (weight.shape[0], weight.shape[1]))

    def unpack(self, packed: Packed) -> Tensor:
        """The float32 matrix."""
        return packed.tensors["weight"]

    def floats(self, packed: Packed) -> Tensor:
        """The stored matrix itself."""
        return packed.tensors["weight"]

    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """The float32 matrix."""
        return {"weight": PackedTensor(torch.float32, self.shape)}

    @property
    def is_identity(self) -> bool:
        """True."""
        return True
