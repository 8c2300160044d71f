"""What a stored layout may say: as many bit planes as there are, factors and a power of two in range."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from qsae_quantizers.float16_scales import from_float16

LARGEST_EXPONENT = 200
"""In size: float32 ends at 2^128 and fades away at 2^-149, and float16 scales have 15 of these bits."""


def check_planes(n_bits: Any, stored: int, most: int) -> None:
    """Refuse a number of bits that is none, is more than the options say or less than there are planes.

    Raises:
        ValueError: with all of them.
    """
    if type(n_bits) is not int or not stored <= n_bits <= most:
        raise ValueError(f"n_bits {n_bits!r:.80} with {stored} bit planes, and the options say {most}")


def check_factors(factors: Any, most: int) -> None:
    """Refuse what is not one finite factor for each number of planes.

    Raises:
        ValueError: which says so.
    """
    numbers = isinstance(factors, list) and all(type(f) in (int, float) for f in factors)
    if not numbers or len(factors) != most or not all(0 <= f < 2.0**128 for f in factors):
        raise ValueError(f"level_scales are {most} numbers, not {factors!r:.80}")


def check_exponent(exponent: Any, scales: Tensor) -> None:
    """Refuse a power of two that is none, or takes the scales out of float32.

    Args:
        scales: float16, as stored.

    Raises:
        ValueError: which says so.
    """
    if type(exponent) is not int or abs(exponent) > LARGEST_EXPONENT:
        raise ValueError(f"scale_exponent is a whole number up to {LARGEST_EXPONENT}, not {exponent!r:.80}")
    if scales.numel() and not math.isfinite(float(from_float16(scales, exponent).abs().max())):
        raise ValueError(f"scales times 2^{exponent} are beyond float32")
