"""Benchmark ``inference``: encode and decode with packed weights, as ``qsae bench --json`` measures it.

Beside it stands what any library can do with stock torch: decoding with ``embedding_bag`` in float32.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from benchmarks.processes import Schedule, run_side
from benchmarks.results import progress
from benchmarks.settings import ROOT, Settings
from benchmarks.sides import Side

NAME = "inference"
BATCHES = (1, 64, 1024, 4096)
BAG = Side("torch", "embedding_bag, fp32", "benchmarks.bag_step", "fp32")


def run(settings: Settings) -> dict[str, Any]:
    """``{"baseline": [{sizes, result}], "bench": what qsae bench printed, or {"error": reason}}``."""
    schedule = Schedule(1, 5, 5, 1) if settings.quick else Schedule(5, 200, 20, 2)
    baseline = []
    for batch_size in BATCHES[:2] if settings.quick else BATCHES:
        shape = settings.reference._replace(batch_size=batch_size)
        result = run_side(BAG, shape, schedule, settings)
        baseline.append({**shape._asdict(), **result})
    bench = _bench(settings)
    progress(
        f"inference: baseline of {len(baseline)} batch sizes; qsae bench: {bench.get('error', 'measured')}"
    )
    return {"baseline": baseline, "bench": bench}


def _bench(settings: Settings) -> dict[str, Any]:
    """``qsae bench --json``; its ``rows`` become the page's table as they are."""
    command = [settings.qsae, "bench", "--json"]
    command += ["--quick"] if settings.quick else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"error": lines[-1], "command": " ".join(["qsae", *command[1:]])}
    return {"command": " ".join(["qsae", *command[1:]]), **json.loads(done.stdout)}
