"""The activations that all sides train on: sparse sums of random atoms. Shapes: N rows, D width, A atoms."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import torch

N_ATOMS = 32_768
ACTIVE = 32
NOISE = 0.02
CHUNK_ROWS = 4096


def make(
    folder: pathlib.Path, *, d: int, rows: int, seed: int, n_atoms: int = N_ATOMS, active: int = ACTIVE
) -> pathlib.Path:
    """The ``.npy`` file, float32 ``[N, D]``; written if it is not there.

    Each row is the sum of ``active`` of ``n_atoms`` random unit atoms, with coefficients 0.5 + abs(N(0, 1)),
    plus noise of standard deviation 0.02 in each dimension.
    """
    path = folder / f"{rows}x{d}-{active}of{n_atoms}-seed{seed}.npy"
    if path.exists():
        return path
    generator = torch.Generator().manual_seed(seed)
    atoms_AD = torch.nn.functional.normalize(torch.randn(n_atoms, d, generator=generator), dim=1)
    x_ND = np.empty((rows, d), dtype=np.float32)
    for start in range(0, rows, CHUNK_ROWS):
        n = min(CHUNK_ROWS, rows - start)
        indices = torch.randint(n_atoms, (n, active), generator=generator)
        values = 0.5 + torch.randn(n, active, generator=generator).abs()
        sums = torch.nn.functional.embedding_bag(indices, atoms_AD, per_sample_weights=values, mode="sum")
        noise = NOISE * torch.randn(n, d, generator=generator)
        x_ND[start : start + n] = (sums + noise).numpy()
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp.npy")
    np.save(unfinished, x_ND)
    os.replace(unfinished, path)
    return path
