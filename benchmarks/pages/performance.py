"""docs/performance.md from the results; every number comes from the JSON files."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from benchmarks import fidelity, inference, scaling, startup
from benchmarks import training_step as step
from benchmarks.pages import about as page_about
from benchmarks.pages import details as page_details
from benchmarks.pages import inference as page_inference
from benchmarks.pages import plots
from benchmarks.pages import step as page_step
from benchmarks.pages.page import measured, write
from benchmarks.settings import Settings

Result = dict[str, Any]
INTRODUCTION = """\
# Performance

This page is written by `make bench`, which measures everything on it in one go: medians over repeats, the
sides taking turns on one machine. What counts are the ratios; absolute numbers are those of the machine
[below](#machine).
"""
NAMES = (step.NAME, fidelity.NAME, scaling.NAME, startup.NAME, inference.NAME)


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page, and the plots beside it where matplotlib is installed; None without any result."""
    results = measured(NAMES, settings)
    if not results:
        return None
    sections: list[tuple[str, Callable[[Result], str]]] = [
        (step.NAME, page_step.section),
        (fidelity.NAME, page_details.fidelity_section),
        (inference.NAME, page_inference.section),
        (startup.NAME, page_details.startup_section),
    ]
    parts = [INTRODUCTION, *(section(results[name]) for name, section in sections if name in results)]
    if scaling.NAME in results:
        page.parent.mkdir(parents=True, exist_ok=True)
        files = plots.draw(results[scaling.NAME], page.parent)
        parts.append(page_details.scaling_section(results[scaling.NAME], files))
    return write(page, results, parts, wanted=NAMES, data=page_about.DATA)
