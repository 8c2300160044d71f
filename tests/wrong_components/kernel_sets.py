"""Wrong kernel sets, each made from a right one: torch's own operations under other names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from qsae_core import ComponentSpec, kernels
from qsae_core.conformance.reference_parts import PlainConfig
from qsae_core.contracts.kernel_set import KernelSet


class RightKernels(KernelSet):
    """What torch does anyway."""

    device = "cpu"

    def unavailable(self) -> str | None:
        return None

    def operations(self) -> Mapping[str, Callable[..., Any]]:
        return {"gather_dot": kernels.OPERATIONS["gather_dot"].torch_implementation}


class UnavailableKernels(RightKernels):
    """Right, though not here."""

    def unavailable(self) -> str | None:
        return "it needs a machine that nobody has"


class SaysNoWithoutReason(RightKernels):
    """Does not say why it cannot be used."""

    def unavailable(self) -> str | None:
        return ""


class InventsOperations(RightKernels):
    """Brings an operation that nothing calls."""

    def operations(self) -> Mapping[str, Callable[..., Any]]:
        return {**super().operations(), "gather_dots": print}


class RoundsSums(RightKernels):
    """Adds up in half precision."""

    def operations(self) -> Mapping[str, Callable[..., Any]]:
        def gather_dot(left: Tensor, right: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
            exact: Tensor = kernels.OPERATIONS["gather_dot"].torch_implementation(
                left, right, indices, offsets
            )
            return exact.half().float()

        return {"gather_dot": gather_dot}


class FailsToConstruct(RightKernels):
    """Cannot be made."""

    def __init__(self, config: PlainConfig) -> None:
        raise RuntimeError("no")


def kernel_set(cls: type[KernelSet]) -> ComponentSpec:
    return ComponentSpec("kernel", cls.__name__.lower(), PlainConfig, f"{__name__}:{cls.__name__}")


RIGHT = [kernel_set(RightKernels), kernel_set(UnavailableKernels)]
WRONG = [
    (kernel_set(SaysNoWithoutReason), "availability"),
    (kernel_set(InventsOperations), "known"),
    (kernel_set(RoundsSums), "agrees"),
    (kernel_set(FailsToConstruct), "constructs"),
]
