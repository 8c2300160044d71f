"""Kernel set ``cpu``: the operations that coders are made of, compiled for AVX2, AVX-512, VNNI and AMX."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl


class CpuKernelsConfig(ComponentConfig):
    """Compiled operations for CPUs with AVX2 or more, in the best instructions that the machine has."""


@hookimpl
def qsae_register_kernels() -> list[ComponentSpec]:
    """Register ``cpu``."""
    return [ComponentSpec("kernel", "cpu", CpuKernelsConfig, "qsae_kernels_cpu.kernels:CpuKernels")]
