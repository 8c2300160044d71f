"""Benchmark ``step``: the whole training step of every side, rounds over all sides so that they alternate."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.processes import Schedule, run_side
from benchmarks.results import progress
from benchmarks.settings import Settings, Shape
from benchmarks.sides import COMPILED, QSAE, Side, qsae_side, sides

NAME = "step"


def run(settings: Settings) -> dict[str, Any]:
    """Every side at every shape: ``{"shapes": [{sizes, "sides": [{who, "rounds": [result]}]}]}``."""
    schedule = Schedule(1, 2, 2, 1) if settings.quick else Schedule(2, 5, 2, 8)
    rounds = {settings.shapes[-1]: 2, settings.reference: 1 if settings.quick else 3}
    taking_part = sides(settings)
    return {
        "shapes": [
            measure_shape(shape, taking_part, rounds[shape], schedule, settings) for shape in settings.shapes
        ]
    }


def measure_shape(
    shape: Shape, taking_part: Sequence[Side], rounds: int, schedule: Schedule, settings: Settings
) -> dict[str, Any]:
    """All sides at one shape: ``{sizes, "sides": [{who, "rounds": [result]}]}``."""
    results: dict[str, list[dict[str, Any]]] = {side.name: [] for side in taking_part}
    for number in range(rounds):
        for side in taking_part:
            if any("error" in result for result in results[side.name]):
                continue  # it would fail again
            result = run_side(side, shape, schedule, settings)
            results[side.name].append(result)
            progress(f"{shape}, round {number + 1}: {side.name}: {_short(result, shape)}")
    return {**shape._asdict(), "sides": [_record(side, results[side.name]) for side in taking_part]}


def _record(side: Side, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    own = {"library": side.library, "what": side.what, "precision": side.precision}
    return {**own, "options": side.options, "environment": side.environment, "rounds": rounds}


def _short(result: dict[str, Any], shape: Shape) -> str:
    if "error" in result:
        return str(result["error"])
    return f"{shape.batch_size / median(result['seconds']):,.0f} tokens/s"


# --- reading a record


def error(record: dict[str, Any]) -> str | None:
    """Why a side has no numbers; None where it has."""
    return next((r["error"] for r in record["rounds"] if "error" in r), None)


def seconds(record: dict[str, Any]) -> list[float]:
    """Every timed step of all rounds."""
    return [s for r in record["rounds"] if "error" not in r for s in r["seconds"]]


def tokens_per_second(record: dict[str, Any], batch_size: int) -> float:
    """From the median step of all rounds."""
    return batch_size / median(seconds(record))


def products(record: dict[str, Any]) -> float:
    """Step time over the encoder product that the same process timed: the median of the rounds' ratios."""
    return median(median(r["seconds"]) / median(r["product_seconds"]) for r in record["rounds"])


def peak_bytes(record: dict[str, Any]) -> int:
    """The largest of the rounds."""
    return max(r["peak_bytes"] for r in record["rounds"])


def working(shape: dict[str, Any], library: str, precision: str | None = None) -> list[dict[str, Any]]:
    """A library's records that have numbers, the fastest first."""
    records = [
        r
        for r in shape["sides"]
        if r["library"] == library and precision in (None, r["precision"]) and error(r) is None
    ]
    return sorted(records, key=lambda r: median(seconds(r)))


def best_qsae(shape: dict[str, Any], kernels: str) -> dict[str, Any] | None:
    """qsae's fastest record with a kernel set (``none`` or ``COMPILED``)."""
    records = [r for r in working(shape, QSAE) if r["options"]["kernels"] == kernels]
    return records[0] if records else None


def best_sides(result: dict[str, Any] | None) -> list[Side]:
    """qsae's fastest sides at the first shape, torch's operators and compiled kernels; else int8."""
    if result is None:
        return [qsae_side("int8", kernels) for kernels in ("none", COMPILED)]
    records = [best_qsae(result["shapes"][0], kernels) for kernels in ("none", COMPILED)]
    return [qsae_side(r["options"]["screen"], r["options"]["kernels"]) for r in records if r]
