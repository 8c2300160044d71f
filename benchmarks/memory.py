"""Benchmark ``memory``: the most memory that commands hold of a large SAE, beside the size of its file.

A TopK SAE of random unit rows is written as SAELens writes one, in float32 and in bfloat16. Each command of
qsae that takes it from there is a process of its own, whose largest resident set the system counts: Python,
torch, and every page of a file that is mapped.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
from typing import Any, NamedTuple

import numpy as np

from benchmarks.processes import run_script
from benchmarks.results import progress
from benchmarks.settings import Settings

NAME = "memory"
DTYPES = ("float32", "bfloat16")
WRITER = str(pathlib.Path(__file__).with_name("memory_files.py"))
TIMEOUT = 5400
IMPORTS = "import torch, qsae_core.quantization.run, qsae_core.artifact.imported"
"""What the commands rest on, whatever they are given."""


class Sizes(NamedTuple):
    """Of the SAE and of the saved vectors."""

    n_latents: int
    width: int
    k: int
    vectors: int
    calibration: int


SIZES = Sizes(n_latents=131_072, width=1024, k=64, vectors=4096, calibration=512)
QUICK = Sizes(n_latents=2048, width=64, k=8, vectors=512, calibration=256)


def run(settings: Settings) -> dict[str, Any]:
    """``{sizes, "base": peak of Python and torch, "files": {dtype: bytes}, "commands": [...]}``."""
    sizes = QUICK if settings.quick else SIZES
    folder = settings.folder / NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    vectors = np.random.default_rng(settings.seed).normal(size=(sizes.vectors, sizes.width))
    np.save(folder / "states.npy", vectors.astype(np.float32))
    found: dict[str, Any] = {**sizes._asdict(), "files": {}, "commands": []}
    found["base"] = _measured([sys.executable, "-c", IMPORTS], "base", folder, settings)
    for dtype in DTYPES[-1:] if settings.quick else DTYPES:
        spec = {**sizes._asdict(), "dtype": dtype, "seed": settings.seed, "out": f"{dtype}"}
        _measured([sys.executable, WRITER, json.dumps(spec)], f"write {dtype}", folder, settings)
        found["files"][dtype] = (folder / dtype / "sae_weights.safetensors").stat().st_size
        for what, arguments in _commands(dtype, sizes).items():
            measured = _measured([settings.qsae, *arguments], f"{what} {dtype}", folder, settings)
            shown = " ".join(["qsae", *arguments])
            found["commands"].append({"dtype": dtype, "what": what, "command": shown, **measured})
        for made in (dtype, f"coder-{dtype}", f"back-{dtype}", "results"):
            shutil.rmtree(folder / made, ignore_errors=True)
    return found


def _commands(dtype: str, sizes: Sizes) -> dict[str, list[str]]:
    """What is measured -> arguments of ``qsae``, in the order in which one needs the other."""
    coder, data = f"coder-{dtype}", ["--data", "tensors", "--data-path", "states.npy"]
    four = ["--quantizer.n-bits", "4", "--encoder-quantizer", "rtn", "--encoder-quantizer.n-bits", "4"]
    tokens = ["--tokens", str(sizes.calibration)]
    of_four = f"results/rtn-{dtype}/tensors/0"

    def quantize(name: str) -> list[str]:
        return ["quantize", coder, *data, "--quantizer", name, *four, *tokens, "--name", f"{name}-{dtype}"]

    return {
        "import": ["import", dtype, "--out", coder],
        "evaluate": ["evaluate", coder, *data],
        "quantize, rtn": quantize("rtn"),
        "quantize, mixed": quantize("mixed"),
        "evaluate, of 4 bits": ["evaluate", of_four, *data, "--no-compare-float"],
        "compare, of both": ["compare", of_four, f"results/mixed-{dtype}/tensors/0"],
        "bench, of 4 bits": ["bench", of_four, "--batch", "1", "--batch", "64", "--repeats", "3"],
        "export": ["export", coder, "--format", "saelens", "--out", f"back-{dtype}"],
    }


def _measured(command: list[str], what: str, folder: pathlib.Path, settings: Settings) -> dict[str, Any]:
    out = settings.folder / "one_result.json"
    launcher = [sys.executable, str(pathlib.Path(__file__).with_name("peak.py")), str(out)]
    found = run_script([*launcher, *command], out, settings, f"{NAME} {what}", timeout=TIMEOUT, folder=folder)
    progress(f"{NAME}: {what}: {found}")
    return found
