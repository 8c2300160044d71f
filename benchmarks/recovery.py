"""Benchmark ``recovery``: how much of a known dictionary each library's SAEs find, on the same vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.compare import compare
from benchmarks.contenders import recovery_contenders, several_layers
from benchmarks.scores import recovery
from benchmarks.settings import Settings, Sizes
from benchmarks.vectors import draw

NAME = "recovery"
FULL = Sizes(batch_size=512, n_latents=256, k=4, steps=2000, held_out=32_768)
"""As many latents as there are features, and about as many of them active (4.2 on average)."""
QUICK = FULL._replace(batch_size=128, steps=20, held_out=1024)
QUICK_KINDS = ("topk", "batchtopk")


def run(settings: Settings) -> dict[str, Any]:
    """``compare``'s record, with ``chance``: what random directions score, and which SAEs have no row."""
    sizes = QUICK if settings.quick else FULL
    vectors = draw(
        {"use": "synthetic"},
        settings.folder / NAME,
        steps=sizes.steps,
        batch_size=sizes.batch_size,
        held_out=sizes.held_out,
        seed=settings.seed,
    )
    assert vectors.dictionary is not None
    dictionary = np.load(vectors.dictionary)
    directions = np.random.default_rng(settings.seed).normal(size=(sizes.n_latents, dictionary.shape[1]))
    contenders = list(recovery_contenders(sizes.n_latents, vectors.source["mean_l0"]))
    if settings.quick:
        contenders = [c for c in contenders if c.kind.startswith(QUICK_KINDS)]
    chance = recovery(directions, dictionary)
    return {
        "chance": chance,
        "several_layers": several_layers(),
        **compare(NAME, vectors, sizes, contenders, settings),
    }
