"""Benchmark ``run``: what a step costs in a real run, in which latents die.

``middle``: every side trains on hidden states of the built-in language model, with what it has against dead
latents, and its steps are timed after a hundred others. ``whole``: ``qsae train`` from its first step to its
last, at the reference shape, with its defaults.
"""

from __future__ import annotations

import shutil
from statistics import fmean, median
from typing import Any

from benchmarks import activations
from benchmarks.contenders import topk_rate
from benchmarks.peers.stopwatch import Spec, product_seconds, read_batches
from benchmarks.processes import Schedule, run_side
from benchmarks.qsae_training import run as run_command
from benchmarks.quality import BUILT_IN_KIND, harvested
from benchmarks.results import progress
from benchmarks.settings import ROOT, Settings, Shape
from benchmarks.sides import COMPILED, HUGE_PAGES, QSAE, Side, peer_sides
from benchmarks.training_step import error, seconds

NAME = "run"
MIDDLE = Shape(2048, 256, 8192, 32)
BEFORE, TIMED = 100, 40
STEPS = 200
"""Of the run in whose middle these are; schedules and windows are shares of it."""
RATE = 10
"""Times each peer's own rate for long runs: the middle one of those that benchmark ``quality`` tries."""
WHOLE_STEPS = 100
WHOLE_ROWS = 262_144


def run(settings: Settings) -> dict[str, Any]:
    """``{"middle": {sizes, "sides": [{who, "rounds": [result]}]}, "whole": {...}}``."""
    return {"middle": middle(settings), "whole": whole(settings)}


def middle(settings: Settings) -> dict[str, Any]:
    """Each side in a process of its own, rounds over all of them."""
    shape = Shape(64, 256, 512, 8) if settings.quick else MIDDLE
    before, timed, steps = (4, 3, 10) if settings.quick else (BEFORE, TIMED, STEPS)
    data, _ = harvested(BUILT_IN_KIND, "builtin", None, settings)
    window = max(1, steps // 8) * shape.batch_size
    common = {"run_steps": steps, "batches": before + timed}
    of_peers = {"lr": RATE * topk_rate(shape.n_latents), "dead_tokens": window}
    rates = {"SAELens": {"lr": RATE * 3e-4}}
    sides = [side._replace(options=side.options | common) for side in own_sides()]
    for side in peer_sides():
        if side.peer in settings.peers and side.precision == "fp32" and not side.options:
            options = common | of_peers | rates.get(side.library, {})
            sides.append(side._replace(options=options))
    schedule = Schedule(before, timed, timed, float("inf"))
    records = []
    for side in sides:
        result = run_side(side, shape, schedule, settings, data=data)
        records.append({"library": side.library, "what": side.what, "rounds": [result]})
        short = error(records[-1]) or f"{shape.batch_size / fmean(seconds(records[-1])):,.0f} tokens/s"
        progress(f"{NAME}: {side.name}: {short}")
    return {**shape._asdict(), "before": before, "timed": timed, "steps": steps, "sides": records}


def own_sides() -> list[Side]:
    """qsae's defaults with compiled kernels and without, and with latents left to die."""
    ways = (
        ("compiled kernels", COMPILED, True),
        ("compiled kernels, latents left to die", COMPILED, False),
        ("torch operators", "none", True),
    )
    return [
        Side(
            QSAE, what, "benchmarks.qsae_step", "fp32",
            options={"screen": "auto", "kernels": kernels, "keep_alive": alive}, environment=HUGE_PAGES,
        )
        for what, kernels, alive in ways
    ]  # fmt: skip


def whole(settings: Settings) -> dict[str, Any]:
    """Seconds of a step of ``qsae train``, over those of an encoder product before and after it."""
    shape = settings.reference
    steps = 10 if settings.quick else WHOLE_STEPS
    rows = 4096 if settings.quick else WHOLE_ROWS
    path = activations.make(settings.data, d=shape.d, rows=rows, seed=settings.seed)
    sizes = ["--n-latents", shape.n_latents, "--k", shape.k, "--batch-size", shape.batch_size]
    sizes += ["--steps", steps]
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    arguments = ["--sae", "topk", "--data", "tensors", "--data-path", shown, *sizes]
    spec = Spec("", str(path), **shape._asdict(), seed=0, warm_up=0, steps=0, min_steps=0, seconds=0,
                threads=settings.threads, options={})  # fmt: skip
    sample = read_batches(spec)[0]
    product = list(product_seconds(spec, sample))
    outcome = run_command(list(map(str, arguments)), 16_384, NAME, "whole", settings)
    product += product_seconds(spec, sample)
    shutil.rmtree(settings.folder / NAME / "run", ignore_errors=True)
    found: dict[str, Any] = {**shape._asdict(), "steps": steps, "product_seconds": product, **outcome.shown}
    if "seconds" in found:
        found |= {
            "products": found["seconds"] / steps / median(product),
            "dead": outcome.values["dead_fraction"],
        }
        progress(f"{NAME}: qsae train: {found['products']:.2f} products a step")
    return found


def rows(result: dict[str, Any]) -> list[tuple[dict[str, Any], float, float, float]]:
    """Of each side that has numbers: its record, tokens/s, products a step, dead share at the end.

    Means over steps: what is done against dead latents need not be done in every one.
    """
    found = []
    for record in result["sides"]:
        if error(record) is None:
            once, step = record["rounds"][0], fmean(seconds(record))
            product = median(once["product_seconds"])
            found.append((record, result["batch_size"] / step, step / product, once["dead"]))
    return found
