"""Runs one side in a process of its own, all in this process's group, and returns what it measured."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import activations
from benchmarks.settings import ROOT, Settings, Shape
from benchmarks.sides import Side

TIMEOUT = 900
"""Seconds after which a process is ended, where nothing else is said."""
DATA_ROWS = 16_384
CLEARED = (
    "THP_MEM_ALLOC_ENABLE",
    "GLIBC_TUNABLES",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TRIM_THRESHOLD_",
    "QSAE_KERNELS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTHONPATH",
)
"""Variables of the caller's environment that would change a measurement."""


class Schedule:
    """How many steps a process does.

    Args:
        warm_up: not timed; cut short once they have taken half of ``seconds``.
        steps: timed at most.
        min_steps: timed at least.
        seconds: after so many, no further step begins.
    """

    def __init__(self, warm_up: int, steps: int, min_steps: int, seconds: float) -> None:
        self.values = {"warm_up": warm_up, "steps": steps, "min_steps": min_steps, "seconds": seconds}


def run_side(
    side: Side, shape: Shape, schedule: Schedule, settings: Settings, data: pathlib.Path | None = None
) -> dict[str, Any]:
    """What the side's process wrote; ``{"error": reason}`` if it failed.

    Args:
        data: ``.npy`` file of activations; None: sums of random atoms.
    """
    python = settings.python(side.peer)
    if not pathlib.Path(python).exists():
        return {"error": f"no environment {pathlib.Path(python).parents[1].name}: see benchmarks/README.md"}
    rows = max(DATA_ROWS, shape.batch_size) if shape.d <= 512 else 2 * shape.batch_size
    if data is None:
        data = activations.make(settings.data, d=shape.d, rows=rows, seed=settings.seed)
    out = settings.folder / "one_result.json"
    spec = {
        "out": str(out),
        "data": str(data),
        **shape._asdict(),
        "seed": settings.seed,
        **schedule.values,
        "threads": settings.threads,
        "options": side.options,
    }
    own = [side.script] if side.peer else ["-m", side.script]
    return run_script([python, *own, json.dumps(spec)], out, settings, side.name, side.environment)


def run_script(
    command: Sequence[str],
    out: pathlib.Path,
    settings: Settings,
    name: str,
    environment: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
    folder: pathlib.Path = ROOT,
) -> dict[str, Any]:
    """Run a command that writes JSON to ``out``; ``{"error": reason}`` if it does not."""
    out.unlink(missing_ok=True)
    failure = run(command, settings, name, environment, timeout, folder)
    if failure is not None:
        return {"error": failure}
    return dict(json.loads(out.read_text()))


def run(
    command: Sequence[str],
    settings: Settings,
    name: str,
    environment: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
    folder: pathlib.Path = ROOT,
) -> str | None:
    """Run a command in a folder, with its output in a log; the reason if it fails, else None."""
    log = settings.folder / "logs" / (re.sub(r"\W+", "-", name).strip("-") + ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    inherited = {k: v for k, v in os.environ.items() if k not in CLEARED}
    with log.open("w") as file:
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=inherited | {"OMP_NUM_THREADS": str(settings.threads)} | dict(environment or {}),
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"ended after {timeout:g} seconds"
    return None if done.returncode == 0 else _reason(log.read_text(errors="replace"), done.returncode)


def _reason(log: str, status: int) -> str:
    """The exception's line, or the last one that was written."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"qsae: error|[\w.]*(Error|Exception|Interrupt)\b", line)]
    reason = (raised or lines or [f"exit status {status}"])[-1]
    return re.split(r"(?<=[a-z'\]]\.) ", reason)[0][:300]
