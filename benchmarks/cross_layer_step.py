"""Benchmark ``step-cross-layer``: a cross-layer transcoder's training step beside the sum of its products.

The sum of its products: for each source layer l of L, the encoder product with F latents and the choice of k
of them, the sparse decode into the (L - l) layers from l on, and the gradients of both, on float matrices as
they are. No way of training it does without that; normalisation, losses, dead latents, clipping and Adam come
on top in a step.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.processes import Schedule, run_side
from benchmarks.results import progress
from benchmarks.settings import Settings, Shape
from benchmarks.sides import COMPILED, HUGE_PAGES, QSAE, Side

NAME = "step-cross-layer"
LAYERS = 4
SHAPE = Shape(2048, 512, 8192, 32)
"""F is that of each layer."""
QUICK = Shape(256, 64, 1024, 8)
KINDS = ("step", "products", "transcoders")
"""What one process times by turns; ``transcoders``: whole steps of L transcoders of one layer, with decoders
as wide, one after another."""


def run(settings: Settings) -> dict[str, Any]:
    """``{sizes, "layers", "sides": [{who, "rounds": [result]}]}``."""
    shape = QUICK if settings.quick else SHAPE
    schedule = (
        Schedule(1, 2, 2, 1) if settings.quick else Schedule(6, 12, 6, 60)
    )  # the first steps take memory
    found = []
    for side in sides():
        rounds = []
        for number in range(1 if settings.quick else 3):
            result = run_side(side, shape, schedule, settings)
            rounds.append(result)
            said = result.get("error") or ", ".join(f"{k} {median(result[k]):.3f} s" for k in KINDS)
            progress(f"{LAYERS} layers of {shape}, round {number + 1}: {side.name}: {said}")
        found.append({"what": side.what, "options": side.options, "rounds": rounds})
    return {**shape._asdict(), "layers": LAYERS, "sides": found}


def sides() -> list[Side]:
    """With torch's operators and with compiled ones; and as ``qsae train`` does it where these are there."""
    script = "benchmarks.cross_layer_sides"
    options = {"layers": LAYERS}
    ways = {
        "torch operators": ("none", "none"),
        "compiled kernels": (COMPILED, "none"),
        "compiled kernels, int8 screen": (COMPILED, "int8"),
    }
    return [
        Side(QSAE, what, script, "fp32", None, options | {"kernels": kernels, "screen": screen}, HUGE_PAGES)
        for what, (kernels, screen) in ways.items()
    ]


# --- reading a record


def error(record: dict[str, Any]) -> str | None:
    """Why a side has no numbers; None where it has."""
    return next((r["error"] for r in record["rounds"] if "error" in r), None)


def seconds(record: dict[str, Any], kind: str) -> float:
    """The median of all rounds."""
    return median(s for r in record["rounds"] for s in r[kind])
