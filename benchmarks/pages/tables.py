"""Numbers and tables as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table; the first ``texts`` columns are aligned to the left, the others to the right."""
    rule = ["---" if i < texts else "---:" for i in range(len(columns))]
    lines = [columns, rule, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def count(value: float) -> str:
    """3 digits or whole: ``1,234``, ``12.3``, ``0.123``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(value: float | None) -> str:
    """``12.3``, ``0.45``; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def gigabytes(value: float) -> str:
    """Of 10^9 bytes."""
    return f"{value / 1e9:.2f} GB"


def percent(value: float | None, digits: int = 2) -> str:
    """A share as a percentage; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.{digits}f}%"
