"""How a peer's side of the benchmark ``end-to-end`` is run and measured; every ``*_run.py`` here uses this.

Such a script is given one argument, a JSON object (``Run`` in ``run_spec.py``). It trains as its library's
own runner does, from a text file to a coder on disk; there the clock stops. Then it loads what it saved, and
leaves what that gives on the held-out vectors.
"""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from run_spec import Run
from stopwatch import peak_bytes
from training import Spec, Trained, write_arrays


class Side(NamedTuple):
    """What a library does, in two parts: ``prepare(run)`` ends where its training begins."""

    prepare: Callable[[Run], Callable[[], object]]
    """Opens model and text, and gives what trains and saves."""
    load: Callable[[Run], Trained]
    """Loads what was saved, as its library serves it."""


def main(side: Side, distribution: str) -> None:
    """Train, and write what it took and what came of it.

    Args:
        distribution: the library that is driven; its version is recorded.
    """
    run = Run(**json.loads(sys.argv[1]))
    torch.set_num_threads(run.threads)
    torch.manual_seed(run.seed)
    stages = {"start, imports": time.time() - run.started}
    train = side.prepare(run)
    stages["model and text opened"] = time.time() - run.started - sum(stages.values())
    train()
    seconds = time.time() - run.started
    stages["training, to the saved coder"] = seconds - sum(stages.values())
    peak = peak_bytes()
    write_arrays(_spec(run), 0, side.load(run))
    versions = {"version": importlib.metadata.version(distribution), "torch": torch.__version__}
    result = {
        "seconds": seconds,
        "ready_seconds": seconds,
        "stages": stages,
        "peak_bytes": peak,
        "distribution": distribution,
        "python": sys.version.split()[0],
        **versions,
    }
    pathlib.Path(run.out).write_text(json.dumps(result))


def _spec(run: Run) -> Spec:
    """What ``write_arrays`` takes."""
    return Spec(
        run.out, "", run.held_out, run.batch_size, run.n_latents, run.k, run.seed, run.threads, attempts=[]
    )
