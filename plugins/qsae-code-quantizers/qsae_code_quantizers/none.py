"""Code quantizer ``none``: the identity. Shapes: N entries."""

from __future__ import annotations

from torch import Tensor

from qsae_core.contracts import CodeQuantizer


class NoCodeQuantizer(CodeQuantizer):
    """Leaves values as they are."""

    def forward(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """The very tensor that came in."""
        return values_N

    def pack(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """Not for use: values stay float32."""
        raise TypeError("values of codes are not quantized")

    def unpack(self, levels_N: Tensor, latent_N: Tensor) -> Tensor:
        """Not for use: values stay float32."""
        raise TypeError("values of codes are not quantized")

    @property
    def is_identity(self) -> bool:
        """True."""
        return True
