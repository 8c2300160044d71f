"""Benchmark ``startup``: from a command to its first trained step, for each kind of data; short commands."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from typing import Any

from benchmarks import activations
from benchmarks.processes import run as run_command
from benchmarks.processes import run_script
from benchmarks.results import progress
from benchmarks.settings import Settings

NAME = "startup"
_COMMAND = "from qsae_cli.main import cli; cli({!r})"
SHORT = {
    "import click, pydantic, pluggy": "import click, pydantic, pluggy",
    "qsae --help": _COMMAND.format(["--help"]),
    "qsae list-plugins": _COMMAND.format(["list-plugins"]),
}
"""What start-up alone takes, beside the libraries that it rests on."""
COMMON = ("train", "--sae", "topk", "--steps", "1", "--eval", "reconstruction")


def run(settings: Settings) -> dict[str, Any]:
    """Each kind of data: the command's wall time, and where the time to the first step goes."""
    path = str(activations.make(settings.data, d=settings.reference.d, rows=16_384, seed=settings.seed))
    kinds = {
        "tensors": ["--data", "tensors", "--data-path", path],
        "synthetic": ["--data", "synthetic"],
        "lm, built-in model": ["--data", "lm"],
    }
    repeats = 1 if settings.quick else 3
    found = [_kind(name, data, repeats, settings) for name, data in kinds.items()]
    return {"kinds": found, "short": [_short(name, code, repeats) for name, code in SHORT.items()]}


def _short(name: str, code: str, repeats: int) -> dict[str, Any]:
    """The least CPU time of a process that runs this code."""
    seconds = []
    for _ in range(5 * repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"name": name, "cpu_seconds": min(seconds)}


def _kind(name: str, data: list[str], repeats: int, settings: Settings) -> dict[str, Any]:
    folder = settings.folder / "startup"
    arguments = [*COMMON, *data, "--out", str(folder), "--threads", str(settings.threads)]
    walls, stages = [], []
    for _ in range(repeats):
        shutil.rmtree(folder, ignore_errors=True)
        started = time.perf_counter()
        failure = run_command([settings.qsae, *arguments], settings, f"startup command {name}")
        if failure:
            return {"data": name, "error": failure}
        walls.append(time.perf_counter() - started)
        shutil.rmtree(folder, ignore_errors=True)
        out = settings.folder / "one_result.json"
        spec = json.dumps({"out": str(out), "arguments": arguments[1:], "started": time.time()})
        command = [sys.executable, "-m", "benchmarks.startup_probe", spec]
        stages.append(run_script(command, out, settings, f"startup stages {name}"))
    progress(f"startup: {name}: {walls} s")
    return {"data": name, "command": " ".join(["qsae", *arguments]), "wall_seconds": walls, "stages": stages}
