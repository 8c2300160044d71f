"""Wheels and sdists of the distributions.

What git knows, or would add, is copied to a folder of its own and built there: nothing else can get into a
distribution, the checkout stays as it is, and each gets the license. The interpreter that runs this has every
build backend installed, so that no environment is made for any of them.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from distributions import ROOT, Distribution, distributions

LICENSE = "LICENSE"
BUILD_WHEEL = """
import importlib, os, sys
backend, out, *folders = sys.argv[1:]
hooks = importlib.import_module(backend)
for folder in folders:
    os.chdir(folder)
    hooks.build_wheel(out)
"""
"""A program: backend, folder for the wheels, folders to build."""
BUILD = f"{BUILD_WHEEL}    hooks.build_sdist(out)\n"
MANY = "flit_core.buildapi"
"""The backend that may be called again and again in one process; setuptools keeps things between calls."""


def stage(to: pathlib.Path) -> None:
    """Copy the repository as git has it, changes included, and the license into every distribution's folder.

    Raises:
        CalledProcessError: this is no checkout.
    """
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():  # one that is deleted is still known
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    for distribution in distributions(to)[1:]:
        shutil.copy2(to / LICENSE, distribution.folder / LICENSE)


def portions(chosen: Sequence[Distribution], processes: int) -> list[tuple[str, list[str]]]:
    """(backend, folders) for each process; what setuptools builds takes longer, and comes alone and first."""
    alone, together = [], []
    for distribution in chosen:
        backend = str(distribution.file["build-system"]["build-backend"])
        if backend == MANY:
            together.append(str(distribution.folder))
        else:
            alone.append((backend, [str(distribution.folder)]))
    shares = [together[start::processes] for start in range(processes)]
    # a compiler takes longest, and the folders beside core's are the ones with compiled parts
    return [*reversed(alone), *((MANY, share) for share in shares if share)]


def build(names: Sequence[str] | None, out: pathlib.Path) -> int:
    """Build the distributions of these names, or all; how many there are.

    Raises:
        RuntimeError: one cannot be built; with what its backend printed.
    """
    processes = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        stage(pathlib.Path(folder))
        chosen = [d for d in distributions(pathlib.Path(folder)) if names is None or d.name in names]
        out.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(processes) as pool:
            jobs = [pool.submit(_build, *portion, out) for portion in portions(chosen, processes)]
        for job in jobs:
            job.result()
    return len(chosen)


def _build(backend: str, folders: list[str], out: pathlib.Path) -> None:
    command = [sys.executable, "-c", BUILD, backend, str(out.resolve()), *folders]
    when = ["git", "log", "-1", "--format=%ct"]  # files in wheels have the commit's time, not the copy's
    epoch = subprocess.run(when, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{', '.join(folders)}\n{done.stdout}\n{done.stderr}")
