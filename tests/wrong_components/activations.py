"""Wrong activations, each made from the kit's right one."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn

from qsae_core import ComponentSpec
from qsae_core.conformance.reference_parts import PlainConfig, ReLU


class Nameless(ReLU):
    """Has no word of other libraries."""

    def pointwise(self) -> None:
        return None


class ChangesDtype(Nameless):
    """Gives float64."""

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        return pre_acts.relu().double()


class IgnoresIndex(Nameless):
    """A slope per latent, which gathered entries do not look up."""

    keeps_order = False

    def __init__(self, config: Any, n_latents: int) -> None:
        super().__init__(config, n_latents)
        self.slope = nn.Parameter(torch.linspace(1, 2, n_latents))

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        return pre_acts.relu() * (self.slope if latent_index is None else self.slope[0])


class NaNGradient(Nameless):
    """A square root whose gradient is 0 times NaN where nothing is active."""

    keeps_order = False

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        return torch.where(pre_acts > 0, pre_acts.sqrt(), 0.0)


class WrongDerivative(ReLU):
    """A gradient that is twice the derivative, undeclared."""

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        latents = pre_acts.relu()
        return 2 * latents - latents.detach()


class Undetermined(ReLU):
    """A slope in training that no seed determines."""

    def __init__(self, config: Any, n_latents: int) -> None:
        super().__init__(config, n_latents)
        self.slope = 1 + random.SystemRandom().random()

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        return pre_acts.relu() * (self.slope if self.training else 1.0)


class ForgetsScale(ReLU):
    """Learns a scale in training and keeps it outside the state."""

    scale = 1.0

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        if self.training:
            self.scale = 2.0
        return pre_acts.relu() * self.scale


class CountsInEvaluation(ReLU):
    """Counts its calls in a buffer, in evaluation mode too."""

    def __init__(self, config: Any, n_latents: int) -> None:
        super().__init__(config, n_latents)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        self.calls += 1
        return super().forward(pre_acts, latent_index)


class ShiftsOrder(Nameless):
    """Says that it keeps the order, but has a threshold above zero."""

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        return (pre_acts - 0.1).relu()


class CallsItselfReLU(ReLU):
    """Twice a ReLU, and says that it is one."""

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        return 2 * pre_acts.relu()


class DeclaredSurrogate(WrongDerivative):
    """The gradient is not the derivative, and says so."""

    straight_through = True


def activation(cls: type[ReLU]) -> ComponentSpec:
    return ComponentSpec("activation", cls.__name__.lower(), PlainConfig, f"{__name__}:{cls.__name__}")


RIGHT = [activation(DeclaredSurrogate)]
WRONG = [
    (activation(ChangesDtype), "shape"),
    (activation(IgnoresIndex), "gathered"),
    (activation(NaNGradient), "gradient"),
    (activation(WrongDerivative), "derivative"),
    (activation(Undetermined), "deterministic"),
    (activation(ForgetsScale), "state"),
    (activation(CountsInEvaluation), "eval-keeps-state"),
    (activation(ShiftsOrder), "order"),
    (activation(CallsItselfReLU), "pointwise"),
]
