"""Activation: the function of the pre-activations. Shapes: B tokens, F latents, N entries."""

from __future__ import annotations

import abc
from typing import ClassVar

from torch import Tensor, nn

from qsae_core.component import ComponentConfig, name_of
from qsae_core.contracts.dense import Pointwise
from qsae_core.errors import ConfigError


class Activation(nn.Module, abc.ABC):
    """An elementwise function of pre-activations. Built as ``Class(config, n_latents)``."""

    straight_through: ClassVar[bool] = False
    """Whether its gradient is a surrogate and not the derivative; checked by the conformance suite."""
    keeps_order: ClassVar[bool] = False
    """Whether latents rank as their pre-activations do: one function for all latents, non-decreasing, with
    ``f(c z) = c f(z)`` for c > 0. The largest latents are then found among pre-activations, and only those
    are passed through the activation."""

    def __init__(self, config: ComponentConfig, n_latents: int) -> None:
        super().__init__()
        self.config, self.n_latents = config, n_latents

    @abc.abstractmethod
    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """Latents from pre-activations, differentiable.

        Args:
            pre_acts: ``[B, F]``, or ``[N]`` gathered entries of it.
            latent_index: for ``[N]`` input, int ``[N]``: the latent of each entry (per-latent parameters
                are gathered by it); None for ``[B, F]``.
        """

    def candidates(self, pre_BF: Tensor) -> Tensor:
        """``[B, F]``: what sparsity rules select among, without gradient.

        ``forward``, but that an entry is not zero here where only its gradient is wanted: a jump's threshold
        learns from the pre-activations on both sides. Values are those of ``forward`` in any case.
        """
        latents: Tensor = self(pre_BF)
        return latents

    has_gates: ClassVar[bool] = False
    """Whether ``gates`` is defined: rules that price the number of active latents need it."""

    def gates(self, pre_N: Tensor, latent_N: Tensor) -> Tensor:
        """``[N]``: 1 where an entry is active, else 0; its gradient is that of a surrogate."""
        raise NotImplementedError(f"{type(self).__name__} has no gates")

    def pointwise(self) -> Pointwise | None:
        """What evaluation computes, as other libraries write it; None where they have no word for it."""
        return None

    def take(self, point: Pointwise) -> None:
        """Become this function, by what is learned of it; for activations whose ``pointwise`` is not None.

        Raises:
            ConfigError: if it is another one.
        """
        own = self.pointwise()
        if own is None or own.function != point.function:
            name = "no function of other libraries" if own is None else own.function
            raise ConfigError(f"activation '{name_of(self)}' is {name}, not {point.function}")
