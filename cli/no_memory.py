"""What torch and Python say where there is no memory, as an error for users. Imports no torch."""

from __future__ import annotations

import re

from qsae_core.errors import QsaeError

_CPU = re.compile(r"can't allocate memory: you tried to allocate (\d+) bytes")
_GPU = "OutOfMemoryError"
"""torch's class."""


def as_error(error: BaseException) -> QsaeError | None:
    """The error for users; None where this one is about something else."""
    asked = _CPU.search(str(error)) if isinstance(error, RuntimeError) else None
    if asked is not None:
        what = f"there is no memory for {int(asked[1]):,} bytes more"
    elif isinstance(error, MemoryError):
        what = "there is no memory left"
    elif type(error).__name__ == _GPU:
        what = f"the GPU has no memory left: {str(error).split('. ')[0]}"
    else:
        return None
    return QsaeError(
        what,
        allowed="what fits beside all else; weights, gradients and Adam's moments of a coder take 32 bytes "
        "times n_latents times width",
        next="fewer latents (--n-latents), smaller batches (--batch-size), or what QSAE_DEBUG=1 shows to "
        "need the memory",
    )
