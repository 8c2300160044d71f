"""CodeQuantizer: the values of codes in a few levels per latent. Shapes: F latents, N entries."""

from __future__ import annotations

import abc
from typing import ClassVar

from torch import Tensor, nn

from qsae_core.component import ComponentConfig


class CodeQuantizer(nn.Module, abc.ABC):
    """Maps the values of codes to a few levels per latent. Built as ``Class(config, n_latents)``.

    Ranges are what it measures in training mode, as buffers; evaluation mode changes nothing. An active
    entry stays active and an inactive one stays zero.
    """

    bits: float = 32.0
    """Bits that the value of an active entry takes, its sign included."""
    splits: ClassVar[bool] = False
    """Whether it serves a part of the latents, ``n_latents`` of them (``train.latent_parallel``): it treats
    each alone, or asks ``kernels.partners()``. Its tensors of that length are then taken for ranges."""

    def __init__(self, config: ComponentConfig, n_latents: int) -> None:
        super().__init__()
        self.config, self.n_latents = config, n_latents

    @abc.abstractmethod
    def forward(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """``[N]`` values -> quantized values, differentiable, if only straight through.

        In training mode the ranges of the latents take these values in first. In evaluation mode a second
        application changes nothing.

        Args:
            latent_N: int ``[N]``, the latent of each value.
        """

    @abc.abstractmethod
    def pack(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """uint8 ``[N]``: the level of each quantized value; 0 where it is zero."""

    @abc.abstractmethod
    def unpack(self, levels_N: Tensor, latent_N: Tensor) -> Tensor:
        """float32 ``[N]``: the values of levels; equals ``forward`` in evaluation mode bit for bit."""

    @property
    def is_identity(self) -> bool:
        """Whether it leaves values as they are (only ``none`` says so); ``pack`` is then not called."""
        return False
