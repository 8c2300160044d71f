"""Scales as they are stored: float16, with one power of two for the whole matrix. Shapes: R scales."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TOP_EXPONENT = 15
"""The largest stored scale lies in [2^14, 2^15]."""


def to_float16(scale_R: Tensor) -> tuple[Tensor, int]:
    """float32 scales -> ``(stored, exponent)``: float16 numbers that stand for ``stored * 2^exponent``.

    A float16 alone ends at 65504 and fades away below 6e-5. With the exponent chosen for the largest scale
    all others keep their 11 bits down to 2^-28 of it, lose bits below, and are 0 under 2^-39 of it.
    """
    largest = float(scale_R.nan_to_num(0.0, 0.0, 0.0).max())
    mantissa, exponent = math.frexp(largest)
    if (
        round(mantissa * 2**11) == 2**11
    ):  # rounds up to the next power of two: what unpacks must pack the same
        exponent += 1
    exponent -= TOP_EXPONENT
    return (scale_R.double() * 2.0**-exponent).half(), exponent


def from_float16(stored_R: Tensor, exponent: int, factor: float = 1.0) -> Tensor:
    """float32 ``[R]``: ``stored * 2^exponent * factor``, rounded once."""
    return (stored_R.double() * (2.0**exponent * factor)).float()


def powers_of_two(exponent_R: Tensor) -> Tensor:
    """float32 ``2^e`` for int ``e`` from -126 to 127, exactly (``exp2`` need not be)."""
    return ((exponent_R.to(torch.int32) + 127) << 23).view(torch.float32)
