"""Benchmark ``inference``: decoding from packed codes, and whole coders as ``qsae bench`` measures them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.processes import run_script
from benchmarks.results import progress
from benchmarks.settings import ROOT, Settings

NAME = "inference"
BATCHES = (1, 64, 1024, 4096)
CODERS: dict[str, list[str]] = {
    "ternary, 4-bit encoder": ["--sae", "ternary"],
    "ternary, 4-bit encoder, without kernels": [
        *("--sae", "ternary", "--kernels", "none", "--arithmetic", "fast")
    ],
    "8-bit decoder and encoder": [
        *("--sae", "topk", "--quantizer", "ste", "--quantizer.n-bits", "8"),
        *("--encoder-quantizer", "ste", "--encoder-quantizer.n-bits", "8"),
    ],
}
"""What ``qsae bench`` is asked for: name -> arguments."""


def run(settings: Settings) -> dict[str, Any]:
    """``{"decode": rows or {"error": reason}, "coders": {name: what qsae bench printed, or an error}}``."""
    decode = _decode(settings)
    coders = {name: _bench(arguments, settings) for name, arguments in CODERS.items()}
    progress(f"inference: {len(coders)} coders")
    return {"decode": decode, "coders": coders}


def _decode(settings: Settings) -> dict[str, Any]:
    out = settings.folder / "one_result.json"
    shape = settings.reference
    spec = {
        "out": str(out),
        "d": shape.d,
        "n_latents": shape.n_latents,
        "k": shape.k,
        "batches": BATCHES[:2] if settings.quick else BATCHES,
        "repeats": 2 if settings.quick else 9,
        "seed": settings.seed,
        "threads": settings.threads,
    }
    command = [sys.executable, "-m", "benchmarks.decode_rows", json.dumps(spec)]
    return run_script(command, out, settings, "decode rows")


def _bench(arguments: list[str], settings: Settings) -> dict[str, Any]:
    shape = settings.reference
    sizes = ["--n-latents", str(shape.n_latents), "--width", str(shape.d), "--threads", str(settings.threads)]
    shown = ["bench", *arguments, *sizes]
    command = [settings.qsae, *shown, "--json", *(["--quick"] if settings.quick else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    text = " ".join(["qsae", *shown])
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"error": lines[-1], "command": text}
    return {"command": text, **json.loads(done.stdout)}
