"""Results as JSON files, one for each benchmark, and lines about what goes on."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks.machine import describe
from benchmarks.settings import Settings

_STARTED = time.monotonic()


def progress(text: str) -> None:
    """A line on the terminal, with the minutes since the start."""
    seconds = int(time.monotonic() - _STARTED)
    print(f"[{seconds // 60:2d}:{seconds % 60:02d}] {text}", flush=True)


def record(name: str, measure: Callable[[Settings], dict[str, Any]], settings: Settings) -> None:
    """Measure, and write ``results/NAME.json`` with when, where and how it was measured."""
    settings.results.mkdir(parents=True, exist_ok=True)
    load, started = os.getloadavg()[0], time.monotonic()
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    measured = measure(settings)
    about = {
        "date": date,
        "minutes": round((time.monotonic() - started) / 60, 2),
        "load_before": load,
        "command": settings.command,
        "seed": settings.seed,
        "threads": settings.threads,
        "quick": settings.quick,
        "machine": describe(),
    }
    path = settings.results / f"{name}.json"
    path.write_text(json.dumps({"about": about, **measured}, indent=1) + "\n")


def read(name: str, settings: Settings) -> dict[str, Any] | None:
    """A benchmark's result, or None if it has not been measured."""
    path = settings.results / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else None
