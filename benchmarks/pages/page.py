"""What all pages share: the results that there are, and the parts around a page's own."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.pages import about
from benchmarks.results import read
from benchmarks.settings import Settings

Result = dict[str, Any]


def measured(names: Iterable[str], settings: Settings) -> dict[str, Result]:
    """Benchmark -> its result, of those that have one."""
    return {name: result for name in names if (result := read(name, settings)) is not None}


def write(
    page: pathlib.Path,
    results: dict[str, Result],
    sections: Sequence[str],
    *,
    wanted: Iterable[str] = (),
    data: str = "",
    timed: bool = True,
) -> pathlib.Path:
    """Write a page: its first section, what to distrust, the others, what was not measured, the machine.

    Args:
        sections: the page's own; the first is the introduction, empty ones are left out.
        wanted: the benchmarks of which the page would have a result.
        data: a sentence about the data.
        timed: whether any number is a time.
    """
    introduction, *others = sections
    parts = [introduction, about.warnings(results, timed=timed), *others]
    missing = [name for name in wanted if name not in results]
    parts += [f"Not measured: {', '.join(missing)}.\n"] if missing else []
    parts.append(about.section(results, data))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(without_folders("\n".join(part for part in parts if part)))
    return page


def without_folders(text: str) -> str:
    """What follows a flag of a command, without the folders that it lies in on the machine that measured."""
    return re.sub(r"(--[\w-]+ )/(?:[^/\s`]+/)*([^/\s`]+)", r"\1\2", text)
