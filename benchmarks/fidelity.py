"""Benchmark ``fidelity``: what a screen costs in reconstruction, by whole runs of ``qsae train``."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks import activations
from benchmarks.processes import run as run_command
from benchmarks.results import progress
from benchmarks.settings import ROOT, Settings
from benchmarks.sides import COMPILED

NAME = "fidelity"


class Way(NamedTuple):
    """One way to train on the same data; ``seed`` moves initial weights and the order of the stream."""

    screen: str
    kernels: str
    seed: int = 0


WAYS = (
    Way("none", "none"),
    Way("bf16", "none"),
    Way("int8", "none"),
    Way("none", COMPILED),
    Way("int8", COMPILED),
    Way("none", "none", seed=1),
)
"""The first one is exact; the last one shows how much the seed alone changes."""
D, N_ATOMS, ACTIVE = 256, 1024, 16
"""The data: sums of 16 of 1024 random atoms, which the run has time to learn."""
FULL = "--n-latents 8192 --k 16 --steps 400 --batch-size 1024"
QUICK = "--n-latents 256 --k 16 --steps 20 --batch-size 128 --eval-tokens 1024"


def run(settings: Settings) -> dict[str, Any]:
    """Every way: ``{"arguments": what all have in common, "runs": [{way, fvu, l0, recall}]}``."""
    rows = 2**13 if settings.quick else 2**18
    path = activations.make(settings.data, d=D, rows=rows, seed=settings.seed, n_atoms=N_ATOMS, active=ACTIVE)
    common = f"--data tensors --data-path {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path} "
    common += QUICK if settings.quick else FULL
    data = {"d": D, "n_atoms": N_ATOMS, "active": ACTIVE, "rows": rows}
    return {"arguments": common, "data": data, "runs": [_run(way, common.split(), settings) for way in WAYS]}


def _run(way: Way, common: Sequence[str], settings: Settings) -> dict[str, Any]:
    folder = settings.folder / "fidelity"
    shutil.rmtree(folder, ignore_errors=True)
    command = [settings.qsae, "train", "--sae", "topk", *common]
    command += ["--screen", way.screen, "--kernels", way.kernels, "--seed", str(settings.seed + way.seed)]
    command += ["--eval", "reconstruction", "--eval-every", "0", "--out", str(folder)]
    command += ["--threads", str(settings.threads)]
    failure = run_command(command, settings, f"fidelity {way.screen} {way.kernels} {way.seed}")
    result = {"error": failure} if failure else _read(folder)
    progress(f"fidelity: screen {way.screen}, kernels {way.kernels}, seed +{way.seed}: {result}")
    return way._asdict() | result


def _read(folder: pathlib.Path) -> dict[str, Any]:
    path = next(folder.rglob("metrics.json"))
    coder = json.loads(path.read_text())["coders"]["coder"]
    values = coder["evaluations"]["reconstruction"]
    log = [json.loads(line) for line in (path.parent / "metrics" / "log.jsonl").read_text().splitlines()]
    recalls = [line["screen_recall"] for line in log if line.get("screen_recall") is not None]
    return {
        "fvu": values["fvu"],
        "l0": values["l0"],
        "recall_least": min(recalls, default=None),
        "recall_last": recalls[-1] if recalls else None,
        "logged": len(recalls),
    }
