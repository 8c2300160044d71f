"""What one call of ``python -m benchmarks`` measures, and where."""

from __future__ import annotations

import pathlib
import sys
from dataclasses import dataclass
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
PEERS = ("sae-lens", "dictionary-learning", "eai-sparsify", "sae-bench")
"""Distributions on PyPI, which are also the names of their environments."""


class Shape(NamedTuple):
    """Sizes of one training step: B tokens, D width, F latents, k entries per token."""

    batch_size: int
    d: int
    n_latents: int
    k: int

    def __str__(self) -> str:
        return f"B={self.batch_size}, d={self.d}, F={self.n_latents}, k={self.k}"


REFERENCE = Shape(4096, 512, 32768, 32)
SMALL = Shape(2048, 512, 8192, 32)
TINY = Shape(256, 64, 1024, 8)
"""For ``--quick``."""


class Sizes(NamedTuple):
    """Of every run: B, F, k, steps, and the most held-out vectors."""

    batch_size: int
    n_latents: int
    k: int
    steps: int
    held_out: int


@dataclass(frozen=True)
class Settings:
    """One call.

    Attributes:
        folder: takes data, logs and results.
        environments: has a virtual environment for each peer, named as the peer.
        peers: the peers that take part.
        quick: small shapes and few repeats: shows that everything runs, and measures nothing worth citing.
        seed: of data and initial weights.
        threads: CPU threads of every side.
        command: how this was called, for the page.
        model: a model whose states are read for ``quality-code`` and the like.
        layer: of that model; None: the middle one.
        n_latents: F at which the quality benchmarks and ``end-to-end`` compare TopK SAEs; None: their own
            choice.
        tokens: that every side of ``end-to-end`` and of ``existing-saes`` trains on; None: their own choice.
    """

    folder: pathlib.Path
    environments: pathlib.Path
    peers: tuple[str, ...]
    quick: bool
    seed: int
    threads: int
    command: str
    model: str | None = None
    layer: int | None = None
    n_latents: int | None = None
    tokens: int | None = None

    @property
    def results(self) -> pathlib.Path:
        """Folder of the JSON files, one for each benchmark."""
        return self.folder / "results"

    @property
    def data(self) -> pathlib.Path:
        """Folder of the generated activations."""
        return self.folder / "data"

    @property
    def reference(self) -> Shape:
        """The shape that ratios are of."""
        return TINY if self.quick else REFERENCE

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes at which all sides are compared."""
        return (TINY,) if self.quick else (REFERENCE, SMALL)

    @property
    def qsae(self) -> str:
        """The ``qsae`` command of this repository's environment."""
        return str(pathlib.Path(sys.executable).parent / "qsae")

    def python(self, peer: str | None) -> str:
        """The interpreter of a peer's environment; None: the one of this repository."""
        return sys.executable if peer is None else str(self.environments / peer / "bin" / "python")
