"""How strong activations are: bins of their magnitude, an eighth of an octave each. Shapes: N entries."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 8
"""Bins of an octave."""
BELOW, ABOVE = 16, 16
"""Octaves below and above 1 that have bins; what is beyond them is in the outermost one."""
BINS = STEPS * (BELOW + ABOVE)
_EDGES = torch.tensor([2.0 ** (step / STEPS - 1) for step in range(1, STEPS)], dtype=torch.float32)


def bin_of(magnitude: Tensor) -> Tensor:
    """int64 ``[N]``: bin b holds magnitudes from ``lower_edge(b)`` up to, and without, the next one's."""
    mantissa, exponent = torch.frexp(magnitude)  # exact, so that no rounding decides a bin
    step = torch.bucketize(mantissa, _EDGES, right=True)
    return ((exponent.to(torch.int64) - 1 + BELOW) * STEPS + step).clamp(0, BINS - 1)


def lower_edge(bin_: Tensor) -> Tensor:
    """float64: the least magnitude of a bin."""
    return torch.exp2(bin_.to(torch.float64) / STEPS - BELOW)


def strength_key(magnitude: Tensor, hash_: Tensor) -> Tensor:
    """int64 ``[N]``, the smaller the stronger; of equal magnitudes a hash (``kept.hashed``) decides."""
    bits = magnitude.to(torch.float32).contiguous().view(torch.int32).to(torch.int64)
    return ((torch.iinfo(torch.int32).max - bits) << 31) | (hash_ >> 31)
