"""Benchmark ``evaluation``: the core numbers of an SAE, as long as they take here and in SAEBench.

One TopK SAE, trained for a few steps, since how long a number takes does not hang on how good it is. Both
sides are given the model, the matrices and the same contexts of held-out text, and are timed from there; they
take turns. A number of the one stands beside that of the other.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import qsae_data_lm

from benchmarks import processes, texts
from benchmarks.end_to_end import KIND, middle
from benchmarks.results import progress
from benchmarks.settings import Settings

NAME = "evaluation"
BUILTIN = pathlib.Path(qsae_data_lm.__file__).parent / "builtin"
PEER = "sae-bench"
TOKENS, SPLICED = 65_536, 16_384
"""Tokens that are encoded; tokens of predictions with the SAE in place. SAEBench reads whole batches of 16
contexts of at most that."""
QUICK_TOKENS, QUICK_SPLICED = 4_096, 4_096
LATENTS, K, STEPS, BATCH = 16_384, 32, 16, 4096
QUICK_LATENTS, QUICK_STEPS, QUICK_BATCH = 1024, 2, 1024
HELD_OUT_SHARE = 0.2
ROUNDS = 2
BATCH_CONTEXTS = 16


def run(settings: Settings) -> dict[str, Any]:
    """``{sizes, "models": [{"model", "layer", "contexts", "rounds"}]}``: of the built-in model, and of one
    that is given; of each round, side -> ``seconds``, ``values``, ``peak_bytes``, or ``error``."""
    tokens, spliced = (QUICK_TOKENS, QUICK_SPLICED) if settings.quick else (TOKENS, SPLICED)
    sizes = {"tokens": tokens, "spliced_tokens": spliced, "threads": settings.threads}
    models = [str(BUILTIN), *([settings.model] if settings.model else [])]
    layers = [None, *([settings.layer] if settings.model else [])]
    found = [_of_model(model, layer, sizes, settings) for model, layer in zip(models, layers, strict=True)]
    return {**sizes, "n_latents": _n_latents(settings), "k": K, "models": found}


def _n_latents(settings: Settings) -> int:
    return settings.n_latents or (QUICK_LATENTS if settings.quick else LATENTS)


def _of_model(model: str, layer: int | None, sizes: dict[str, int], settings: Settings) -> dict[str, Any]:
    layer = middle(model) if layer is None else layer
    folder = settings.folder / NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = _trained(model, layer, folder, settings)
    spec = {**sizes, "run": str(run), "arrays": str(folder / "given.npz"), "out": str(folder / "result.json")}
    given = _ours({**spec, "timed": False}, settings)
    if "error" in given:
        raise SystemExit(f"{NAME}: {given['error']}")
    names = ("contexts", "spliced_contexts")
    whole = {name: given[name] // BATCH_CONTEXTS * BATCH_CONTEXTS for name in names}
    theirs = {**spec, **whole, "special": given["special"], "layer": layer, "model": model}
    rounds, name = [], pathlib.Path(model).name
    for number in range(1 if settings.quick else ROUNDS):
        rounds.append({"qsae": _ours({**spec, "timed": True}, settings), "SAEBench": _peer(theirs, settings)})
        said = ", ".join(_short(side, record) for side, record in rounds[-1].items())
        progress(f"{NAME}: {name}, round {number + 1}: {said}")
    shutil.rmtree(folder, ignore_errors=True)
    return {"model": name, "layer": layer, "contexts": whole["contexts"], "rounds": rounds}


def _trained(model: str, layer: int, folder: pathlib.Path, settings: Settings) -> pathlib.Path:
    """The run of a TopK SAE."""
    text, _ = texts.files(settings.data / "texts", KIND)
    given = ["--model", model, "--layer", layer, "--dataset", text]
    given += ["--held-out-share", HELD_OUT_SHARE, "--dtype", "fp32"]
    steps, batch = (QUICK_STEPS, QUICK_BATCH) if settings.quick else (STEPS, BATCH)
    sizes = ["--n-latents", _n_latents(settings), "--k", K, "--batch-size", batch, "--steps", steps]
    more = ["--statistics-tokens", batch, "--eval", "reconstruction", "--eval-tokens", batch]
    more += ["--eval-every", 0]
    command = [settings.qsae, "train", "--sae", "topk", *map(str, [*given, *sizes, *more])]
    failure = processes.run([*command, "--out", str(folder / "runs")], settings, f"{NAME} train")
    if failure is not None:
        raise SystemExit(f"{NAME}: {failure}")
    (metrics,) = (folder / "runs").rglob("metrics.json")
    return metrics.parent


def _ours(spec: dict[str, Any], settings: Settings) -> dict[str, Any]:
    command = [settings.python(None), "-m", "benchmarks.evaluation_side", json.dumps(spec)]
    return processes.run_script(command, pathlib.Path(spec["out"]), settings, f"{NAME} qsae", timeout=3600)


def _peer(spec: dict[str, Any], settings: Settings) -> dict[str, Any]:
    python = settings.python(PEER)
    if PEER not in settings.peers or not pathlib.Path(python).exists():
        return {"error": f"no environment {PEER}: see benchmarks/README.md"}
    command = [python, "benchmarks/peers/sae_bench_core.py", json.dumps(spec)]
    out = pathlib.Path(spec["out"])
    return processes.run_script(command, out, settings, f"{NAME} SAEBench", timeout=3600)


def _short(side: str, record: dict[str, Any]) -> str:
    return f"{side} {record['seconds']:.1f} s" if "seconds" in record else f"{side} {record['error']}"
