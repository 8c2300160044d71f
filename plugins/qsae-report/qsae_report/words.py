"""Numbers as people read them. Imports no torch."""

from __future__ import annotations

import math

UNDEFINED = "\N{EN DASH}"
"""What stands where a value is not defined."""
MINUS = "\N{MINUS SIGN}"
SIGNIFICANT = 4
"""Digits of a number that is not whole."""


def number(value: float | None) -> str:
    """``32,885``, ``0.09832``, ``1.20e−5``; an en dash where it is not defined."""
    if value is None or math.isnan(value):
        return UNDEFINED
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", MINUS)
    size = abs(value)
    if size >= 10**SIGNIFICANT:
        text = f"{value:,.0f}"
    elif size >= 1e-3:
        text = f"{value:,.{max(0, SIGNIFICANT - 1 - math.floor(math.log10(size)))}f}"
    else:
        digits, _, exponent = f"{value:.{SIGNIFICANT - 2}e}".partition("e")
        text = f"{digits}e{int(exponent)}"
    return text.replace("-", MINUS)


def percent(value: float | None) -> str:
    """``2.4%``."""
    return UNDEFINED if value is None or math.isnan(value) else f"{value:.1%}".replace("-", MINUS)


def size(n_bytes: float | None) -> str:
    """``8.4 MB``."""
    if n_bytes is None:
        return UNDEFINED
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:,.0f} {unit}" if unit == "bytes" else f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    raise AssertionError


def safe(text: str) -> str:
    """Text that UTF-8 can say: half a surrogate pair becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
