"""Benchmarks ``quality`` and ``quality-states``: FVU of every library's TopK SAE on the same states."""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks.compare import compare
from benchmarks.contenders import topk_contenders
from benchmarks.settings import ROOT, Settings, Sizes
from benchmarks.vectors import draw, harvest

NAME, NAME_STATES = "quality", "quality-states"
ROWS = 300_000
"""Hidden states that are read from a model; about 1.4 passes over them make a run."""
HELD_OUT = 16_384
BUILT_IN = Sizes(batch_size=2048, n_latents=4096, k=32, steps=200, held_out=HELD_OUT)
STATES = BUILT_IN._replace(n_latents=8192)
QUICK = Sizes(batch_size=128, n_latents=256, k=8, steps=20, held_out=1024)
QUICK_ROWS = 8192


def run(settings: Settings) -> dict[str, Any]:
    """On the built-in language model's middle layer."""
    path = harvested("builtin", None, settings)
    return _compare(NAME, path, "the built-in language model, middle layer", BUILT_IN, settings)


def run_states(settings: Settings) -> dict[str, Any]:
    """On the states of a file, or of a model that is read first."""
    if settings.states is not None:
        return _compare(NAME_STATES, settings.states, f"the file {settings.states}", STATES, settings)
    if settings.model is None:
        raise SystemExit(f"{NAME_STATES} needs --states FILE.npy, or --model DIR and --layer N")
    path = harvested(settings.model, settings.layer, settings)
    layer = "the middle layer" if settings.layer is None else f"layer {settings.layer}"
    return _compare(NAME_STATES, path, f"{pathlib.Path(settings.model).name}, {layer}", STATES, settings)


def harvested(model: str, layer: int | None, settings: Settings) -> pathlib.Path:
    """Hidden states of a model, float32 ``[N, d]``, read if they are not there."""
    rows = QUICK_ROWS if settings.quick else ROWS
    name = f"{pathlib.Path(model).name}-{'middle' if layer is None else layer}-{rows}-seed{settings.seed}.npy"
    return harvest(settings.data / name, rows=rows, model=model, layer=layer, seed=settings.seed)


def _compare(name: str, path: pathlib.Path, title: str, full: Sizes, settings: Settings) -> dict[str, Any]:
    sizes = QUICK if settings.quick else full
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    vectors = draw(
        {"use": "tensors", "path": str(shown)},
        settings.folder / name,
        steps=sizes.steps,
        batch_size=sizes.batch_size,
        held_out=sizes.held_out,
        seed=settings.seed,
    )
    contenders = topk_contenders(sizes.n_latents, sizes.steps * sizes.batch_size, sizes.batch_size)
    return {"title": title, **compare(name, vectors, sizes, contenders, settings)}
