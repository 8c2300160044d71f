"""Memory that steps take and give back, and take again at the next step."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of ``mallopt`` in glibc's ``malloc.h``."""
_MAPPINGS, _TRIM = 65536, 2**26
"""Blocks that may be mapped, glibc's own default; and the free bytes above which memory is handed back, which
glibc comes to by itself where blocks of 32 MB come and go."""
_SET_BY_USERS = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """While this is open, freed memory stays with the process to be used again; then the system gets it back.

    glibc maps each large block and unmaps it when it is freed. So each step of a coder would take its
    temporaries from the system anew, page after page, which a single thread zeroes: with torch's operators a
    tenth of a step on two cores, and more where the system looks for huge pages. Nothing is done where the C
    library is another one, or the user has set something of this.
    """
    library = _library()
    if library is None or any(name in os.environ for name in _SET_BY_USERS):
        yield
        return
    library.mallopt(M_MMAP_MAX, 0)
    library.mallopt(M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_MAX, _MAPPINGS)
        library.mallopt(M_TRIM_THRESHOLD, _TRIM)
        library.malloc_trim(0)


def hand_back() -> None:
    """Give the system all memory that is free within the process: between phases, each of which leaves holes
    that the next one's blocks do not fit into."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)


def _library() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    library = ctypes.CDLL(None) if os.name == "posix" else None
    known = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    return library if known else None
