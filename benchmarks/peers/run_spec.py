"""What one peer's process of the benchmark ``end-to-end`` does; needs the standard library and numpy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Run(NamedTuple):
    """One run; ``benchmarks.end_to_end_sides`` writes it."""

    out: str
    """File that takes the result; arrays go beside it, as ``training.arrays_file`` says."""
    started: float
    """When this process was started, in seconds since the epoch."""
    folder: str
    """Takes what the library saves; empty."""
    model: str
    """Directory of the language model."""
    layer: int
    text: str
    """JSON lines, a document each, in the column ``text``."""
    context: int
    held_out: str
    """``.npy`` file of float32 ``[N, D]``."""
    tokens: int
    """A multiple of ``batch_size``, which is one of ``context``."""
    batch_size: int
    n_latents: int
    k: int
    seed: int
    threads: int
    options: dict[str, Any]
    """What the side alone understands."""

    @property
    def d(self) -> int:
        """Width of the vectors."""
        return int(np.load(self.held_out, mmap_mode="r").shape[1])
