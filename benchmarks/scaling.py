"""Benchmark ``scaling``: qsae's step and its memory as one size of the reference shape changes."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks import training_step
from benchmarks.processes import Schedule, run_side
from benchmarks.results import progress, read
from benchmarks.settings import Settings
from benchmarks.sides import Side

NAME = "scaling"
FULL = {
    "n_latents": [2**n for n in range(12, 18)],
    "d": [256, 512, 1024, 2048],
    "k": [8, 16, 32, 64, 128, 256],
    "batch_size": [256, 1024, 4096, 16384],
}
QUICK = {"n_latents": [1024, 2048], "d": [64, 128], "k": [4, 8], "batch_size": [128, 256]}


def run(settings: Settings) -> dict[str, Any]:
    """Every point, both sides: ``{"reference": sizes, "points": [{varied, sizes, side, result}]}``."""
    chosen = training_step.best_sides(read(training_step.NAME, settings))
    points = [
        _point(varied, value, side, settings)
        for varied, values in (QUICK if settings.quick else FULL).items()
        for value in values
        for side in chosen
    ]
    return {"reference": settings.reference._asdict(), "points": points}


def _point(varied: str, value: int, side: Side, settings: Settings) -> dict[str, Any]:
    shape = settings.reference._replace(**{varied: value})
    schedule = Schedule(1, 2, 2, 1) if settings.quick else Schedule(2, 7, 3, 4)
    result = run_side(side, shape, schedule, settings)
    if "error" not in result:
        result["tokens_per_second"] = shape.batch_size / median(result["seconds"])
    progress(f"{varied}={value}: {side.name}: {result.get('tokens_per_second', result.get('error'))}")
    return {
        "varied": varied,
        **shape._asdict(),
        "side": side.what,
        "kernels": side.options["kernels"],
    } | result
