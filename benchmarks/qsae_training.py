"""qsae's side of the quality benchmarks: ``qsae train`` as a user calls it, and the artifact it leaves."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import processes
from benchmarks.peers.training import Spec, Trained, write_arrays
from benchmarks.settings import Settings
from benchmarks.vectors import Vectors
from qsae_core import artifact
from qsae_core.coder import SparseCoder
from qsae_core.codes import SparseCodes


def train(spec: Spec, vectors: Vectors, name: str, settings: Settings) -> list[dict[str, Any]]:
    """Run each attempt and write its arrays: ``{command, seconds, own_fvu}``, or ``{command, error}``.

    ``own_fvu`` is what ``qsae train`` measured itself, on as many held-out vectors.
    """
    return [_run(number, spec, vectors, name, settings) for number in range(len(spec.attempts))]


def serve(folder: pathlib.Path) -> Trained:
    """The artifact of a run, through ``load``."""
    coder = artifact.load(folder)

    def reconstruct(x: Tensor) -> tuple[Tensor, Tensor]:
        codes = coder.encode(x)
        return coder.decode(codes), codes.to_dense()

    return Trained(reconstruct, atoms(coder))


@torch.no_grad()
def atoms(coder: SparseCoder) -> Tensor:
    """``[F, D]`` in the data's space: what each latent adds to a reconstruction when it is 1."""
    latents = torch.arange(coder.n_latents)[:, None]
    single = SparseCodes.from_top_k(latents, torch.ones(len(latents), 1), coder.n_latents)
    nothing = SparseCodes.from_top_k(latents[:1], torch.zeros(1, 1), coder.n_latents)
    return coder.decode(single) - coder.decode(nothing)


def _run(number: int, spec: Spec, vectors: Vectors, name: str, settings: Settings) -> dict[str, Any]:
    attempt = spec.attempts[number]
    folder = settings.folder / name / "run"
    shutil.rmtree(folder, ignore_errors=True)
    arguments = _arguments(attempt, spec, vectors)
    n_held_out = np.load(vectors.held_out, mmap_mode="r").shape[0]
    fixed = ["--eval-tokens", str(n_held_out), "--eval", "reconstruction", "--eval-every", "0"]
    fixed += ["--threads", str(spec.threads), "--out", str(folder)]
    title = f"{name} qsae {' '.join(attempt['arguments'])} {attempt['label']}"
    failure = processes.run([settings.qsae, "train", *arguments, *fixed], settings, title)
    shown = {"command": " ".join(["qsae", "train", *arguments])}
    if failure is not None:
        return {**shown, "error": failure}
    metrics = next(folder.rglob("metrics.json"))
    summary = json.loads(metrics.read_text())
    write_arrays(spec, number, serve(metrics.parent))
    own_fvu = summary["coders"]["coder"]["evaluations"]["reconstruction"]["fvu"]
    return {**shown, "seconds": summary["training_seconds"], "own_fvu": own_fvu}


def _arguments(attempt: dict[str, Any], spec: Spec, vectors: Vectors) -> list[str]:
    """Of ``qsae train``; the attempt's own ones win."""
    common = {
        "--n-latents": spec.n_latents,
        "--k": spec.k,
        "--steps": spec.steps,
        "--batch-size": spec.batch_size,
        "--lr": attempt["lr"],
        "--seed": spec.seed,
    }
    own = attempt["arguments"]
    left_out = {*own, *(["--k"] if attempt.get("penalty") else [])}
    flags = [str(item) for name, value in common.items() if name not in left_out for item in (name, value)]
    return [*own, *vectors.arguments, *flags]
