"""Benchmark ``step-transcoder``: the whole training step of a transcoder, of qsae and of sparsify."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.processes import Schedule
from benchmarks.settings import Settings
from benchmarks.sides import MEMORY_KEPT, Side, qsae_side
from benchmarks.training_step import measure_shape

NAME = "step-transcoder"
ROUNDS = 3


def run(settings: Settings) -> dict[str, Any]:
    """Every side at the reference shape: as ``training_step.run``."""
    schedule = Schedule(1, 2, 2, 1) if settings.quick else Schedule(2, 5, 2, 8)
    rounds = 1 if settings.quick else ROUNDS
    taking_part = [side for side in sides() if side.peer in (None, *settings.peers)]
    return {"shapes": [measure_shape(settings.reference, taking_part, rounds, schedule, settings)]}


def sides() -> Iterator[Side]:
    """Without and with a skip connection: qsae with torch's operators and compiled kernels, and sparsify."""
    for skip in (False, True):
        options, end = {"transcode": True, "skip": skip}, ", skip" if skip else ""
        for side in (qsae_side("none", "none"), qsae_side("int8", "none"), qsae_side("int8", "cpu")):
            yield side._replace(what=side.what + end, options=side.options | options)
        script = "benchmarks/peers/sparsify_step.py"
        for how, environment in (("fp32", {}), ("fp32, memory kept", MEMORY_KEPT)):
            yield Side("sparsify", f"{how}{end}", script, "fp32", "eai-sparsify", options, environment)
