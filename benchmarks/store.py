"""Benchmarks ``store`` and ``store-reading``: what training from a store costs, in its order and in its
number format; and how fast it is read.

Order: the same vectors in three orders, one pass each: from the store; from a file in which all of them are
permuted; and from a file in the text's order, shuffled in windows of neighbours. Formats: stores of one text
in each number format. All coders are measured on the same held-out vectors, those of the store in float32.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import time
from typing import Any

import numpy as np

from benchmarks import processes
from benchmarks.results import progress
from benchmarks.settings import Settings
from qsae_core.contracts.data import DataSource
from qsae_core.runs import load_plugins, open_data, read_block

NAME, READING = "store", "store-reading"
FORMATS = ("fp32", "fp16", "bf16", "int8")
TOKENS, HELD_OUT = 400_000, 50_000
BATCH, LATENTS, K = 2048, 4096, 32
SEEDS = (0, 1, 2)
WINDOW = 16_384
"""Neighbouring vectors that are shuffled together, where the order is not random: about 64 contexts."""
READS = 100
"""Batches whose reading is timed."""


def run(settings: Settings) -> dict[str, Any]:
    """``{sizes, "formats": [...], "orders": [...], "harvest": command, "computed_in": number format}``."""
    tokens = 8_000 if settings.quick else TOKENS
    forms = (FORMATS[0], FORMATS[-1]) if settings.quick else FORMATS
    stores = {form: _harvest(form, tokens, settings) for form in forms}
    exact = stores["fp32"]
    steps = max(1, tokens // BATCH)
    sizes = {
        "tokens": tokens,
        "held_out": _held_out(settings),
        "batch_size": BATCH,
        "n_latents": LATENTS,
        "k": K,
    }
    found: dict[str, Any] = {**sizes, "steps": steps, "window": WINDOW, "formats": [], "orders": []}
    found["harvest"] = _harvest_command("FORMAT", tokens, "STORE", settings)
    found["computed_in"] = _open(exact).describe()["dtype"]
    for form, place in stores.items():
        data = ["--store", str(place)]
        record = {"format": form, "bytes": _bytes(place)}
        found["formats"].append(record | _trained(data, exact, steps, form, settings))
    permuted, in_order = _files(exact, settings)
    orders = {
        "from the store": ["--store", str(exact)],
        "all vectors permuted": ["--data-path", str(permuted)],
        "windows of neighbours": ["--data-path", str(in_order)],
    }
    orders["windows of neighbours"] += ["--block-rows", str(WINDOW), "--shuffle-blocks", "1"]
    for order, data in list(orders.items())[: 1 if settings.quick else None]:
        found["orders"].append({"order": order} | _trained(data, exact, steps, order, settings))
    return found


def read(settings: Settings) -> dict[str, Any]:
    """``{"batch_size", "formats": [{"format", "vectors_per_second"}]}``, of the stores of ``run``."""
    tokens = 8_000 if settings.quick else TOKENS
    forms = FORMATS[:1] if settings.quick else FORMATS
    rates = [
        {"format": form, "vectors_per_second": _rate(_harvest(form, tokens, settings))} for form in forms
    ]
    return {"batch_size": BATCH, "formats": rates}


def _held_out(settings: Settings) -> int:
    return 2_000 if settings.quick else HELD_OUT


def _harvest_command(form: str, tokens: int, out: str, settings: Settings) -> str:
    model = [] if settings.model is None else ["--model", settings.model]
    layer = [] if settings.layer is None else ["--layer", str(settings.layer)]
    sizes = ["--tokens", str(tokens), "--held-out-tokens", str(_held_out(settings)), "--storage", form]
    return " ".join(["qsae", "cache", *model, *layer, *sizes, "--out", out])


def _harvest(form: str, tokens: int, settings: Settings) -> pathlib.Path:
    place = settings.data / f"store-{pathlib.Path(settings.model or 'builtin').name}-{tokens}-{form}"
    command = _harvest_command(form, tokens, str(place), settings).split()
    failure = processes.run([settings.qsae, *command[1:]], settings, f"{NAME} harvest {form}")
    if failure is not None:
        raise SystemExit(failure)
    return place


def _trained(
    data: list[str], exact: pathlib.Path, steps: int, title: str, settings: Settings
) -> dict[str, Any]:
    """FVU on the held-out vectors of the exact store, a run for each seed."""
    sizes = ["--sae", "topk", "--n-latents", LATENTS, "--k", K, "--batch-size", BATCH, "--steps", steps]
    values = []
    for seed in SEEDS[: 1 if settings.quick else None]:
        folder = settings.folder / NAME / "run"
        shutil.rmtree(folder, ignore_errors=True)
        fixed = ["--seed", seed, "--eval", "reconstruction", "--eval-tokens", 1024, "--eval-every", 0]
        fixed += ["--threads", settings.threads, "--out", folder]
        command = [settings.qsae, "train", *map(str, [*sizes, *data, *fixed])]
        _must(processes.run(command, settings, f"{NAME} train {title} {seed}"))
        (metrics,) = folder.rglob("metrics.json")
        values.append(_fvu(metrics.parent, exact, settings))
    progress(f"{NAME}: {title}: FVU {', '.join(f'{value:.5f}' for value in values)}")
    return {"fvu": values}


def _fvu(run: pathlib.Path, exact: pathlib.Path, settings: Settings) -> float:
    """Of a run's coder, on the held-out vectors of a store."""
    data = ["--store", str(exact), "--tokens", str(_held_out(settings))]
    command = [settings.qsae, "evaluate", str(run), *data, "--eval", "reconstruction", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    fvu: float = json.loads(done.stdout)["evaluations"]["reconstruction"]["fvu"]
    return fvu


def _must(failure: str | None) -> None:
    if failure is not None:
        raise SystemExit(failure)


def _open(place: pathlib.Path) -> DataSource:
    registry = load_plugins().registry
    return open_data(read_block("data", {"use": "store", "path": str(place)}, registry, NAME), registry)


def _bytes(place: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in place.iterdir())


def _rate(place: pathlib.Path) -> float:
    """Vectors/s of ``next_batch``, over many batches behind a first one."""
    source = _open(place)
    source.next_batch(BATCH)
    started = time.perf_counter()
    for _ in range(READS):
        source.next_batch(BATCH)
    seconds = time.perf_counter() - started
    source.close()
    return READS * BATCH / seconds


def _files(exact: pathlib.Path, settings: Settings) -> tuple[pathlib.Path, pathlib.Path]:
    """The store's training vectors, permuted and in the text's order."""
    source = _open(exact)
    assert source.training_tokens is not None
    part = source.held_out_part()
    assert part is not None
    held_out = part.size() or 0
    part.take_all()
    whole = np.concatenate([b.x.numpy() for b in source.held_out(held_out + source.training_tokens, 65_536)])
    training = whole[held_out:]
    folder = settings.data / "store-orders"
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(settings.seed).permutation(len(training))
    for name, rows in (("permuted", training[order]), ("in-order", training)):
        np.save(folder / f"{name}.npy", rows)
    source.close()
    return folder / "permuted.npy", folder / "in-order.npy"
