"""The kernel set ``cpu``: which operations this machine gets from the compiled library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qsae_core.contracts import KernelSet
from qsae_kernels_cpu import fused, lookup, rotation, selection, sparse, updates
from qsae_kernels_cpu.library import LEVELS, library, load

_ANYWHERE: tuple[Callable[..., Any], ...] = (
    sparse.gather_dot,
    sparse.sparse_product,
    sparse.transpose_codes,
    sparse.expand_rows,
    sparse.collect_rows,
    selection.top_k,
    selection.compress,
    updates.project_rows,
    updates.adam,
    updates.ternary_scales,
    lookup.lookup_pack,
    lookup.lookup_product,
    lookup.lookup_gather_dot,
    rotation.rotate,
    rotation.unrotate,
    fused.fused_decoder,
    fused.fused_decode,
)
_WITH_VNNI: tuple[Callable[..., Any], ...] = (
    selection.screen_prepare,
    selection.screen,
    fused.fused_encoder,
    fused.fused_encode,
)


class CpuKernels(KernelSet):
    """Operations compiled for AVX2 or AVX-512, and int8 screening where there is VNNI or AMX."""

    device = "cpu"

    def unavailable(self) -> str | None:
        """Why the library cannot be used here.

        Raises:
            ConfigError: ``QSAE_KERNELS_ISA`` names no instruction set.
        """
        loaded = load()
        return loaded if isinstance(loaded, str) else None

    def operations(self) -> dict[str, Callable[..., Any]]:
        """Name -> function, for the operations that this machine supports."""
        some = _ANYWHERE + (_WITH_VNNI if library().level >= LEVELS["vnni"] else ())
        return {function.__name__: function for function in some}

    def describe(self) -> dict[str, str]:
        """The instruction set that is used, and whose threads."""
        loaded = library()
        openmp = "OpenMP of torch" if "/torch" in loaded.openmp else f"OpenMP of {loaded.openmp}"
        return {"isa": loaded.isa, "threads": openmp}
