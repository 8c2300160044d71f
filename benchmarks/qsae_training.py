"""qsae's side of the quality benchmarks: ``qsae train`` as a user calls it, and the artifact it leaves."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks import processes
from benchmarks.peers.training import Spec, Trained, write_arrays
from benchmarks.settings import Settings, Sizes
from benchmarks.vectors import Vectors
from qsae_core.artifact import artifact
from qsae_core.contracts.coder import SparseCoder
from qsae_core.contracts.codes import SparseCodes

LEAST_HELD_OUT = 1024
"""Vectors that a run measures itself on where nobody reads what it finds."""


class Outcome(NamedTuple):
    """One call of ``qsae train``.

    Attributes:
        shown: ``{command, seconds}``, or ``{command, error}``.
        folder: of the run; None if it failed.
        values: what it measured itself.
    """

    shown: dict[str, Any]
    folder: pathlib.Path | None = None
    values: Mapping[str, float] = MappingProxyType({})


def train(spec: Spec, vectors: Vectors, name: str, settings: Settings) -> list[dict[str, Any]]:
    """Run each attempt and write its arrays: ``{command, seconds, own_fvu}``, or ``{command, error}``.

    ``own_fvu`` is what ``qsae train`` measured itself, where the held-out vectors are those of its own data.
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
    """``[F, D]`` or ``[F, L, D]`` in the data's space: what a latent of 1 adds to a reconstruction."""
    latents = torch.arange(coder.n_latents)[:, None]
    single = SparseCodes.from_top_k(latents, torch.ones(len(latents), 1), coder.n_latents)
    nothing = SparseCodes.from_top_k(latents[:1], torch.zeros(1, 1), coder.n_latents)
    if coder.has_skip:  # what goes past the latents is the same for all
        inputs = torch.zeros(coder.n_latents, coder.shape.d_in)
        single, nothing = replace(single, inputs=inputs), replace(nothing, inputs=inputs[:1])
    return coder.decode(single) - coder.decode(nothing)


def run(arguments: list[str], n_held_out: int, name: str, title: str, settings: Settings) -> Outcome:
    """``qsae train`` in a folder of its own, which the next call removes.

    Args:
        arguments: of ``qsae train``, as a reader would give them.
        n_held_out: vectors that it is measured on.
        name: of the benchmark.
    """
    folder = settings.folder / name / "run"
    shutil.rmtree(folder, ignore_errors=True)
    fixed = ["--eval-tokens", str(n_held_out), "--eval", "reconstruction", "--eval-every", "0"]
    fixed += ["--threads", str(settings.threads), "--out", str(folder)]
    failure = processes.run([settings.qsae, "train", *arguments, *fixed], settings, f"{name} qsae {title}")
    command = " ".join(["qsae", "train", *arguments])
    if failure is not None:
        return Outcome({"command": command, "error": failure})
    metrics = next(folder.rglob("metrics.json"))
    summary = json.loads(metrics.read_text())
    values = summary["coders"]["coder"]["evaluations"]["reconstruction"]
    return Outcome({"command": command, "seconds": summary["training_seconds"]}, metrics.parent, values)


def _run(number: int, spec: Spec, vectors: Vectors, name: str, settings: Settings) -> dict[str, Any]:
    attempt = spec.attempts[number]
    arguments = arguments_of(attempt, spec, vectors.arguments, spec.seed)
    n_held_out = len(np.load(vectors.held_out, mmap_mode="r")) if vectors.same_source else LEAST_HELD_OUT
    title = f"{' '.join(attempt['arguments'])} {attempt['label']}"
    outcome = run(arguments, n_held_out, name, title, settings)
    if outcome.folder is None:
        return outcome.shown
    write_arrays(spec, number, serve(outcome.folder))
    return outcome.shown | ({"own_fvu": outcome.values["fvu"]} if vectors.same_source else {})


def arguments_of(attempt: dict[str, Any], sizes: Spec | Sizes, data: list[str], seed: int) -> list[str]:
    """Of ``qsae train``; the attempt's own ones win."""
    common = {
        "--n-latents": sizes.n_latents,
        "--k": sizes.k,
        "--steps": sizes.steps,
        "--batch-size": sizes.batch_size,
        "--lr": attempt["lr"],
        "--seed": attempt.get("seed", seed),
    }
    own = attempt["arguments"]
    left_out = {*own, *(["--k"] if attempt.get("penalty") else [])}
    flags = [str(item) for name, value in common.items() if name not in left_out for item in (name, value)]
    return [*own, *data, *flags]
