"""Which compiled operations a process uses: those of the kernel sets that work here and agree with torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from qsae_core import kernels
from qsae_core.compose.compose import compose_kernel_set
from qsae_core.errors import ConfigError
from qsae_core.kernels.verification import disagreements
from qsae_core.registry import Registry


class ActiveKernels(NamedTuple):
    """A kernel set in use."""

    name: str
    device: str
    operations: tuple[str, ...]
    """Operations that agree with torch's, and are used."""
    refused: dict[str, str]
    """Operation -> why torch's is used instead."""
    details: dict[str, str]
    """What the set says of itself (``{"isa": "avx512"}``)."""

    def __str__(self) -> str:
        details = ", ".join(f"{key} {value}" for key, value in self.details.items())
        text = f"compiled kernels '{self.name}' for {self.device}" + (f" ({details})" if details else "")
        for operation, reason in self.refused.items():
            text += f"; torch's {operation} instead of theirs: {reason}"
        return text


def activate_kernels(choice: str, registry: Registry) -> tuple[ActiveKernels, ...]:
    """Use compiled operations in this process from now on; each is compared with torch's first.

    Args:
        choice: ``auto`` (what the variable ``QSAE_KERNELS`` says, or every set that works here), ``none``, or
            the name of a set.

    Raises:
        ConfigError: if a set that was named is not installed or not usable here, or two sets are for one
            type of device.
    """
    if choice == "auto":
        choice = os.environ.get(KERNELS_VARIABLE, "auto")
    names = registry.names("kernel") if choice == "auto" else [] if choice == "none" else [choice]
    key = (choice, tuple(names))
    if key not in _activated:
        _activated.clear()
        kernels.uninstall()
        try:
            _activated[key] = tuple(_activate(names, choice, registry))
        except BaseException:
            kernels.uninstall()  # all of them or none
            raise
    return _activated[key]


KERNELS_VARIABLE = "QSAE_KERNELS"
_activated: dict[tuple[str, tuple[str, ...]], tuple[ActiveKernels, ...]] = {}


def _activate(names: Sequence[str], choice: str, registry: Registry) -> Iterator[ActiveKernels]:
    found: dict[str, str] = {}
    for name in names:
        kernel_set = compose_kernel_set(name, registry)
        reason = kernel_set.unavailable()
        if reason is not None:
            if choice == "auto":
                continue
            raise ConfigError(
                f"kernel set '{name}' cannot be used: {reason}", where="kernels", allowed="none"
            )
        device = kernel_set.device
        if device in found:
            raise ConfigError(
                f"kernel sets '{found[device]}' and '{name}' are both for {device}",
                where="kernels",
                next=f"--kernels {found[device]} or --kernels {name}",
            )
        found[device] = name
        functions = kernel_set.operations()
        refused = disagreements(functions, device)
        used = {operation: f for operation, f in functions.items() if operation not in refused}
        kernels.install(device, used)
        yield ActiveKernels(name, device, tuple(sorted(used)), refused, kernel_set.describe())
