"""How a side of the quality benchmarks is trained and measured; every ``*_train.py`` here uses this.

Needs the standard library, torch and numpy. Such a script is given one argument, a JSON object (``Spec``),
trains one coder for each of its attempts, and writes a JSON object to ``spec.out`` and the arrays that scores
are made of beside it. Shapes: N vectors, B of a batch, D width, E width of
what is reconstructed (D but for transcoders), F latents.
"""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

CHUNK_ROWS = 1024
WARM_UP, DECAY = 0.05, 0.2
"""Shares of the steps in which a rate rises at the start and falls to zero at the end."""


class Spec(NamedTuple):
    """What one process trains; ``benchmarks.contenders`` writes it."""

    out: str
    """File that takes the result; arrays go to ``arrays_file(out, number)``."""
    train: str
    """``.npy`` file of float32 ``[steps * B, D]``: the batches one behind the other."""
    held_out: str
    """``.npy`` file of float32 ``[N, D]``."""
    batch_size: int
    n_latents: int
    k: int
    seed: int
    threads: int
    attempts: list[dict[str, Any]]
    """For each coder: ``kind`` and ``lr``, perhaps its own ``seed``, and what the side alone understands."""
    train_target: str | None = None
    """For transcoders: ``.npy`` file of float32 ``[steps * B, E]``, the targets of the rows of ``train``."""
    save: str | None = None
    """Folder that takes each coder as its library saves it, that of attempt N in a folder N; None: nowhere.

    For ``train``, the folder of the attempt's own.
    """

    @property
    def d(self) -> int:
        """Width of the vectors."""
        return int(np.load(self.train, mmap_mode="r").shape[1])

    @property
    def steps(self) -> int:
        """Batches in the training vectors."""
        return int(np.load(self.train, mmap_mode="r").shape[0] // self.batch_size)

    @property
    def warm_up_steps(self) -> int:
        """At least one."""
        return max(1, round(WARM_UP * self.steps))

    @property
    def decay_steps(self) -> int:
        """At least one."""
        return max(1, round(DECAY * self.steps))


class Trained(NamedTuple):
    """A coder as its library serves it, in the data's own space."""

    reconstruct: Callable[[Tensor], tuple[Tensor, Tensor]]
    """``[B, D]`` -> reconstruction ``[B, E]`` and dense codes ``[B, F]``."""
    atoms: Tensor
    """``[F, E]``: rows of the decoder, of any norm."""


class Batches:
    """The training batches in order, as often as they are asked for; each is a fresh copy.

    Args:
        file: of other rows than ``spec.train``.
    """

    def __init__(self, spec: Spec, file: str | None = None) -> None:
        self.rows = np.load(file or spec.train, mmap_mode="r")
        self.size, self.steps = spec.batch_size, spec.steps

    def __iter__(self) -> Iterator[Tensor]:
        for step in range(self.steps):
            start = step * self.size
            yield torch.from_numpy(np.array(self.rows[start : start + self.size]))


def main(train: Callable[[Spec, dict[str, Any]], Trained], distribution: str) -> None:
    """Train each attempt, and write what it gives on the held-out vectors.

    Args:
        distribution: the library that ``train`` drives; its version is recorded.
    """
    spec = Spec(**json.loads(sys.argv[1]))
    torch.set_num_threads(spec.threads)
    seconds = []
    for number, attempt in enumerate(spec.attempts):
        save = None if spec.save is None else str(pathlib.Path(spec.save) / str(number))
        own = spec._replace(seed=attempt.get("seed", spec.seed), save=save)
        torch.manual_seed(own.seed)
        started = time.perf_counter()
        trained = train(own, attempt)
        seconds.append(time.perf_counter() - started)
        write_arrays(spec, number, trained)
        print(f"attempt {number}: {seconds[-1]:.1f} s", flush=True)
    versions = {"version": importlib.metadata.version(distribution), "torch": torch.__version__}
    result = {"seconds": seconds, "distribution": distribution, "python": sys.version.split()[0], **versions}
    pathlib.Path(spec.out).write_text(json.dumps(result))


def arrays_file(out: str, number: int) -> pathlib.Path:
    """Where the arrays of an attempt are."""
    return pathlib.Path(out).with_suffix(f".{number}.npz")


@torch.no_grad()
def write_arrays(spec: Spec, number: int, trained: Trained) -> None:
    """``x_hat`` ``[N, E]``, ``fired`` ``[F]`` (held-out vectors on which a latent is active), ``atoms``."""
    torch.set_float32_matmul_precision("highest")  # a library may have lowered it for its training
    held_out = torch.from_numpy(np.load(spec.held_out))
    x_hat = torch.empty(len(held_out), trained.atoms.shape[1])
    fired = torch.zeros(spec.n_latents, dtype=torch.int64)
    for start in range(0, len(held_out), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        x_hat[rows], codes = trained.reconstruct(held_out[rows])
        fired += (codes != 0).sum(0)
    arrays = {"x_hat": x_hat, "fired": fired, "atoms": trained.atoms.detach()}
    np.savez(arrays_file(spec.out, number), **{name: tensor.numpy() for name, tensor in arrays.items()})
