"""How one side is measured; every side's process imports this. Needs the standard library, torch and numpy.

A side is a script that is given one argument, a JSON object (``Spec``), and writes one JSON object to
``spec.out``. Shapes: B tokens, D width, F latents.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

CHUNK_ROWS = 1024


class Spec(NamedTuple):
    """What one process is to measure; ``benchmarks.sides`` writes it."""

    out: str
    """File that takes the result."""
    data: str
    """``.npy`` file of float32 ``[N, D]`` activations."""
    batch_size: int
    d: int
    n_latents: int
    k: int
    seed: int
    warm_up: int
    """Steps before those that count; fewer once they have taken half of ``seconds``."""
    steps: int
    """Steps that count, at most."""
    min_steps: int
    """Steps that count, at least."""
    seconds: float
    """No further step begins after so many seconds, once there are ``min_steps``."""
    threads: int
    options: dict[str, Any]
    """What the side alone understands."""


def read_spec() -> Spec:
    """The first command line argument; sets torch's threads and seed."""
    spec = Spec(**json.loads(sys.argv[1]))
    torch.set_num_threads(spec.threads)
    torch.manual_seed(spec.seed)
    return spec


def read_rows(spec: Spec, n: int) -> Tensor:
    """The first n rows of the data, float32 ``[n, D]``, in memory."""
    return torch.from_numpy(np.array(np.load(spec.data, mmap_mode="r")[:n], dtype=np.float32))


def read_batches(spec: Spec) -> list[Tensor]:
    """All batches that the data holds, at most four or as many as the option ``batches`` says; float32
    ``[B, D]``."""
    rows = np.load(spec.data, mmap_mode="r").shape[0]
    batches = min(spec.options.get("batches", 4), rows // spec.batch_size)
    return list(read_rows(spec, batches * spec.batch_size).split(spec.batch_size))


def autocast(spec: Spec) -> contextlib.AbstractContextManager[object]:
    """bf16 autocast where the options ask for it."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=bool(spec.options.get("autocast")))


def measure(spec: Spec, step: Callable[[Tensor, int], object], distribution: str) -> dict[str, Any]:
    """Time ``step(batch, number)``, then the encoder product; JSON values.

    Args:
        distribution: the library that the step is of; its version is recorded.
    """
    batches = read_batches(spec)
    number = 0

    def timed() -> float:
        nonlocal number
        batch, started = batches[number % len(batches)], time.perf_counter()
        step(batch, number)
        number += 1
        return time.perf_counter() - started

    warm_up = sum(_series(timed, 1, spec.warm_up, spec.seconds / 2))
    seconds = list(_series(timed, spec.min_steps, spec.steps, spec.seconds))
    peak = peak_bytes()
    torch.set_float32_matmul_precision("highest")
    return {
        "warm_up_seconds": warm_up,
        "seconds": seconds,
        "product_seconds": list(product_seconds(spec, batches[0])),
        "peak_bytes": peak,
        "distribution": distribution,
        "version": importlib.metadata.version(distribution),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "threads": torch.get_num_threads(),
    }


def _series(timed: Callable[[], float], at_least: int, at_most: int, limit: float) -> Iterator[float]:
    """Call until there are enough, or until they have taken too long."""
    total, count = 0.0, 0
    while count < at_least or (count < at_most and total < limit):
        seconds = timed()
        total, count = total + seconds, count + 1
        yield seconds


@torch.no_grad()
def product_seconds(spec: Spec, x_BD: Tensor, repeats: int = 3) -> Iterator[float]:
    """fp32 ``x W^T`` in chunks of rows into one reused buffer: seconds of each repeat after a warm-up."""
    W_FD = torch.randn(spec.n_latents, spec.d)
    buffer = torch.empty(min(CHUNK_ROWS, len(x_BD)), spec.n_latents)
    for repeat in range(repeats + 1):
        started = time.perf_counter()
        for x in x_BD.split(CHUNK_ROWS):
            torch.mm(x, W_FD.T, out=buffer[: len(x)])
        if repeat:
            yield time.perf_counter() - started


def peak_bytes() -> int:
    """Largest resident memory of this process so far (Linux counts it in KiB, macOS in bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write(spec: Spec, result: dict[str, Any]) -> None:
    """Give the result to whoever started this process."""
    pathlib.Path(spec.out).write_text(json.dumps(result))
