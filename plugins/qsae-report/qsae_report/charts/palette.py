"""Colours, dashes and marks.

The six colours of ``LIGHT`` have a contrast of 3:1 and more against white and against a dark page, so that
they can be seen wherever a page sets none; those of ``DARK`` are the same hues, lighter. In both, any two are
far apart in CIE Lab for full vision, for deuteranopes and for protanopes: they differ in lightness or from
blue to yellow. Dashes and marks tell series apart where there is no colour at all, and after six series.
"""

from __future__ import annotations

from typing import Literal

Role = int | Literal["ink", "soft", "grid", "ground"]
"""Number of a series' colour, or what is drawn: text, lesser text, the grid, what is behind all."""

Mark = Literal["circle", "square", "diamond", "triangle"]

LIGHT = ("#1456fd", "#de731c", "#187661", "#c672b7", "#7e652c", "#7459c7")
DARK = ("#8dbfff", "#d76b29", "#2fd69a", "#c17395", "#fec400", "#8779fd")
ON_LIGHT = {"ink": "#1f2328", "soft": "#57606a", "grid": "#d8dee4", "ground": "#ffffff"}
ON_DARK = {"ink": "#e6edf3", "soft": "#9ba5b0", "grid": "#3a424c", "ground": "#16191f"}
DASHES: tuple[tuple[float, ...], ...] = ((), (7, 3), (2, 2.5), (8, 3, 2, 3), (12, 4))
"""Lengths of strokes and gaps, in widths of a pixel; the first is a line without gaps."""
MARKS: tuple[Mark, ...] = ("circle", "square", "diamond", "triangle")


def plain(role: Role) -> str:
    """The colour of a picture that stands alone, on white."""
    return LIGHT[role % len(LIGHT)] if isinstance(role, int) else ON_LIGHT[role]


def themed(role: Role) -> str:
    """The colour within a page: a CSS variable, and what serves where the page does not set it."""
    if isinstance(role, int):
        number = role % len(LIGHT)
        return f"var(--chart-{number + 1}, {LIGHT[number]})"
    inherited = {
        "ink": "currentColor",
        "soft": "currentColor",
        "grid": "rgb(128 128 128 / .35)",
        "ground": "none",
    }
    return f"var(--chart-{role}, {inherited[role]})"


def variables(theme: Literal["light", "dark"]) -> dict[str, str]:
    """The CSS variables of charts within a page, for a page of this kind: ``--chart-1`` -> ``#1456fd``."""
    series, others = (LIGHT, ON_LIGHT) if theme == "light" else (DARK, ON_DARK)
    numbered = {str(number): color for number, color in enumerate(series, 1)}
    return {f"--chart-{name}": color for name, color in {**numbered, **others}.items()}


def luminance(color: str) -> float:
    """Relative luminance of ``#rrggbb`` as WCAG 2 defines it, 0 to 1."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast of two colours as WCAG 2 defines it, 1 to 21."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
