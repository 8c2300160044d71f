"""The machine and the software that something was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
from typing import Any

from benchmarks.settings import ROOT

FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
)
"""CPU flags that decide which arithmetic is fast."""
DISTRIBUTIONS = ("torch", "numpy", "qsae", "qsae-sae-topk", "qsae-kernels-cpu")


def describe() -> dict[str, Any]:
    """JSON values; unknown is None."""
    cpu = _read("/proc/cpuinfo")
    flags = set((_first(r"^flags\s*:\s*(.*)$", cpu) or "").split())
    memory = _first(r"^MemTotal:\s*(\d+) kB$", _read("/proc/meminfo"))
    return {
        "cpu": _first(r"^model name\s*:\s*(.*)$", cpu) or platform.processor() or None,
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "memory_bytes": int(memory) * 1024 if memory else None,
        "huge_pages": _first(r"\[(\w+)\]", _read("/sys/kernel/mm/transparent_hugepage/enabled")),
        "system": _first(r'^PRETTY_NAME="?(.*?)"?$', _read("/etc/os-release")) or platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": _commit(),
        "versions": {name: version for name in DISTRIBUTIONS if (version := _version(name))},
    }


def _read(path: str) -> str:
    file = pathlib.Path(path)
    return file.read_text(errors="replace") if file.exists() else ""


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, flags=re.MULTILINE)
    return found[1] if found else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
