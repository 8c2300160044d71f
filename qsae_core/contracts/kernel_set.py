"""KernelSet: compiled operations for one type of device."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from qsae_core.component import ComponentConfig


class KernelSet(abc.ABC):
    """Compiled operations of ``qsae_core.kernels`` for one type of device. Built as ``Class(config)``.

    Core compares every operation with its own on small inputs when the set is activated, and uses those that
    agree. An operation takes and gives what the function of its name in ``qsae_core.kernels`` does:
    contiguous float32 tensors (indices int32, offsets int64), without gradient.
    """

    device: ClassVar[str]
    """``torch.device.type`` of the tensors it works on: ``cpu``, ``cuda``."""

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def unavailable(self) -> str | None:
        """Why the set cannot be used on this machine, in a sentence; None where it can."""

    @abc.abstractmethod
    def operations(self) -> Mapping[str, Callable[..., Any]]:
        """Name -> function, for the operations that this machine supports."""

    def describe(self) -> dict[str, str]:
        """What it runs on (``{"isa": "avx512"}``), for tables and records."""
        return {}
