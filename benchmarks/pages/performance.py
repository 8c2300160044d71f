"""docs/performance.md from the results; every number comes from the JSON files."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from benchmarks import cross_layer_step, fidelity, inference, scaling, startup
from benchmarks import training_step as step
from benchmarks.pages import about as page_about
from benchmarks.pages import cross_layer as page_cross_layer
from benchmarks.pages import details as page_details
from benchmarks.pages import inference as page_inference
from benchmarks.pages import plots
from benchmarks.pages import step as page_step
from benchmarks.results import read
from benchmarks.settings import Settings

Result = dict[str, Any]
INTRODUCTION = """\
# Performance

This page is written by `make bench`, which measures everything on it in one go: medians over repeats, the
sides taking turns on one machine. What counts are the ratios; absolute numbers are those of the machine
[below](#machine).
"""
NAMES = (step.NAME, cross_layer_step.NAME, fidelity.NAME, scaling.NAME, startup.NAME, inference.NAME)


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page, and the plots beside it where matplotlib is installed; None without any result."""
    results = {name: result for name in NAMES if (result := read(name, settings)) is not None}
    if not results:
        return None
    sections: list[tuple[str, Callable[[Result], str]]] = [
        (step.NAME, page_step.section),
        (cross_layer_step.NAME, page_cross_layer.section),
        (fidelity.NAME, page_details.fidelity_section),
        (inference.NAME, page_inference.section),
        (startup.NAME, page_details.startup_section),
    ]
    page.parent.mkdir(parents=True, exist_ok=True)
    parts = [INTRODUCTION, page_about.warnings(results)]
    parts += [section(results[name]) for name, section in sections if name in results]
    if scaling.NAME in results:
        files = plots.draw(results[scaling.NAME], page.parent)
        parts.append(page_details.scaling_section(results[scaling.NAME], files))
    missing = [name for name in NAMES if name not in results]
    if missing:
        parts.append(f"Not measured: {', '.join(missing)}.\n")
    parts.append(page_about.section(results, page_about.DATA))
    page.write_text("\n".join(part for part in parts if part))
    return page
