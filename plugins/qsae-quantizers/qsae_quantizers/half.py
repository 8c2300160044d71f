"""Quantizer ``half``: weights as 16-bit floats. Shapes: F rows, D columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from qsae_core.contracts import Packed, PackedTensor, Quantizer, straight_through
from qsae_core.errors import ArtifactError
from qsae_quantizers.configs import HalfConfig

ROWS_AT_ONCE = 4096
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Half(Quantizer):
    """``w_hat`` is the nearest bfloat16 or float16; weights that are of that type stay bit for bit.

    The gradient is that of w_hat, handed on to w.
    """

    by_row = True
    packs_by_row = True
    config: HalfConfig

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """Rounded, in the type that came in."""
        return straight_through(weight_FD, weight_FD.to(self._type).to(weight_FD.dtype))

    def pack(self, weight_FD: Tensor) -> Packed:
        """``{"weight": [F, D]}`` of the 16-bit type.

        Raises:
            ArtifactError: for weights that the type does not hold: float16 ends at 65504.
        """
        weight = weight_FD.detach().to(self._type).contiguous()
        if not all(bool(rows.isfinite().all()) for rows in weight.split(ROWS_AT_ONCE)):
            raise ArtifactError(
                f"weights are not finite, or beyond what {self.config.dtype} holds",
                allowed=f"values up to {torch.finfo(self._type).max:.5g}",
                next="--quantizer.dtype bfloat16, or --quantizer none",
            )
        return Packed({"weight": weight}, (weight.shape[0], weight.shape[1]))

    def unpack(self, packed: Packed) -> Tensor:
        """float32, exactly."""
        return packed.tensors["weight"].float()

    def unpack_rows(self, packed: Packed, rows_R: Tensor) -> Tensor:
        """These rows alone."""
        return packed.tensors["weight"].index_select(0, rows_R).float()

    def floats(self, packed: Packed) -> Tensor:
        """The stored matrix itself."""
        return packed.tensors["weight"]

    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """The matrix, in the 16-bit type."""
        return {"weight": PackedTensor(self._type, self.shape)}

    def row_dims(self, packed: Packed) -> Mapping[str, int]:
        """The first one."""
        return {"weight": 0}

    @property
    def _type(self) -> torch.dtype:
        return TYPES[cast(str, self.config.dtype)]
