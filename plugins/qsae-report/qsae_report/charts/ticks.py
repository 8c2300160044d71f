"""Where an axis has its marks, and how numbers are written there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from qsae_report.charts.chart import LEAST, Format

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
CONSTANT = 1e-9
"""Ends closer than this share of their size are one value."""
UNITS = {
    "number": ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")),
    "bytes": ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB")),
}
PLAIN_BELOW = 10_000
"""Numbers below it have no k."""
MOST_WITH_UNIT = 3
"""Digits behind the point, above which marks are written without k or M: 1,200,005."""
SCIENTIFIC_BELOW, SCIENTIFIC_ABOVE = 1e-4, 1e6
"""Of what is written, its unit apart."""
MOST_DIGITS = 15
"""Behind the point: what a float holds."""


def step_of(low: float, high: float, most: int) -> float:
    """The least of 1, 2, 2.5, 5 times a power of ten with no more than ``most`` multiples in the range."""
    rough = (high - low) / max(1, most)
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in STEPS:
        step = factor * power
        if math.floor(high / step + 1e-9) - math.ceil(low / step - 1e-9) + 1 <= most:
            return step
    return 20 * power


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of a round step from ``low`` to ``high``; no more than ``most``."""
    step = step_of(low, high, most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [_rounded(number * step) for number in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Powers of ten; beside them twice and five times them where there is room; every n-th power where
    there is not. Where that leaves less than two, ``linear_ticks``."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside = (low * (1 - 1e-9), high * (1 + 1e-9))
    for factors in ((1, 2, 5), (1,)):
        found = [f * 10.0**d for d in decades for f in factors]
        found = [value for value in found if inside[0] <= value <= inside[1]]
        if len(found) <= most:
            break
    every = math.ceil(len(found) / most) if found else 1
    if every > 1:
        found = [v for v in found if round(math.log10(v)) % every == 0]
    return found if len(found) > 1 else linear_ticks(low, high, most)


def widened(low: float, high: float, most: int, *, log: bool) -> tuple[float, float]:
    """The range with its ends moved outward to marks."""
    if log:
        return _outward(low, -1), _outward(high, 1)
    step = step_of(low, high, most)
    down, up = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return _rounded(down), _rounded(up)


def _outward(value: float, direction: int) -> float:
    """The next of 1, 2, 5 times a power of ten below or above a value, or the value where it is one."""
    decade = math.floor(math.log10(value))
    near = [f * 10.0**d for d in (decade - 1, decade, decade + 1) for f in (1, 2, 5)]
    if direction < 0:
        return max(v for v in near if v <= value * (1 + 1e-9))
    return min(v for v in near if v >= value * (1 - 1e-9))


def spread(low: float, high: float, *, log: bool) -> tuple[float, float]:
    """The range, or one around it where both ends are one value."""
    largest = max(abs(low), abs(high))
    if largest < LEAST:
        return 0.0, 1.0
    if high - low > CONSTANT * largest:
        return low, high
    if log:
        return low / 2, high * 2
    return low - abs(low) / 10, high + abs(high) / 10


def tick_labels(ticks: Sequence[float], kind: Format, *, log: bool = False) -> list[str]:
    """What stands at the marks: all with as many digits as tell them apart, and of one unit; on a logarithmic
    axis each as short as it can be."""
    if not ticks:
        return []
    largest = max(map(abs, ticks))
    scale, unit = _unit(largest, kind)
    if log or not (largest == 0 or SCIENTIFIC_BELOW <= largest / scale < SCIENTIFIC_ABOVE):
        return _told_apart(ticks, kind)
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=abs(ticks[0]) or 1.0)
    digits = _digits(step / scale)
    if unit and kind != "percent" and digits > MOST_WITH_UNIT:
        scale, unit = 1.0, " B" if kind == "bytes" else ""
        digits = _digits(step)
    texts = [f"{value / scale:,.{digits}f}" for value in ticks]
    return [_zero(kind) if value == 0 else text + unit for value, text in zip(ticks, texts, strict=True)]


def _told_apart(values: Sequence[float], kind: Format) -> list[str]:
    """Numbers on their own, to as many digits as it takes."""
    for digits in range(3, MOST_DIGITS + 1):
        texts = [number_text(value, kind, digits) for value in values]
        if len(set(texts)) == len(texts):
            break
    return texts


def number_text(value: float, kind: Format = "number", digits: int = 3) -> str:
    """A number on its own, to some significant digits: 0.0769, 20k, 12.5%, 4.21 MB, 2e-5."""
    scale, unit = _unit(abs(value), kind)
    scaled = value / scale
    if scaled == 0:
        return _zero(kind)
    if not SCIENTIFIC_BELOW <= abs(scaled) < SCIENTIFIC_ABOVE:
        mantissa, _, power = f"{scaled:.{digits - 1}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(power)}{unit}"
    if abs(scaled) >= 10 ** (digits - 1):
        return f"{scaled:,.0f}{unit}"
    return f"{scaled:.{digits}g}{unit}"


def _unit(largest: float, kind: Format) -> tuple[float, str]:
    """By what numbers are divided, and what stands behind them."""
    if kind == "percent":
        return 0.01, "%"
    if kind == "number" and largest < PLAIN_BELOW:
        return 1.0, ""
    for size, unit in UNITS[kind]:
        if largest >= size:
            return size, unit
    return 1.0, " B"


def _digits(step: float) -> int:
    """Digits behind the point that a step has; of 2.5 one more than of 2."""
    for digits in range(MOST_DIGITS):
        whole = step * 10**digits
        if round(whole) > 0 and math.isclose(whole, round(whole), rel_tol=1e-6):
            return digits
    return MOST_DIGITS


def _zero(kind: Format) -> str:
    return "0%" if kind == "percent" else "0"


def _rounded(value: float) -> float:
    """Without the error of a product: 0.3 for 0.30000000000000004."""
    return float(f"{value:.13g}") + 0.0
