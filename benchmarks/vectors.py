"""The vectors of the quality benchmarks: what a data source of qsae gives, written to files for all sides.

    python -m benchmarks.vectors FILE.npy ROWS OPTION=VALUE...

writes the first vectors on which ``qsae train --data lm`` with these options would train.

Shapes: N vectors, D width, E width of a transcoder's targets.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.results import progress
from qsae_core.compose.compose import compose_data
from qsae_core.config.layers import Layer
from qsae_core.config.run import resolve
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.plugins.records import load_plugins

CHUNK_ROWS = 8192


class Vectors(NamedTuple):
    """What all sides train on and are measured on.

    Attributes:
        data: the ``data`` section of a qsae run that reads them.
        train: ``.npy`` file of float32 ``[steps * B, D]``: what the run trains on, in its order.
        held_out: ``.npy`` file of float32 ``[N, D]``.
        source: what the source says of itself.
        dictionary: ``.npy`` file of the true atoms, where the data has them.
        same_source: whether the held-out vectors are the source's own, so that a run measures itself on them.
        train_target: ``.npy`` file ``[steps * B, E]``: the targets of a source that has its own; else None.
        held_out_target: ``.npy`` file ``[N, E]``, likewise.
    """

    data: dict[str, Any]
    train: pathlib.Path
    held_out: pathlib.Path
    source: dict[str, Any]
    dictionary: pathlib.Path | None = None
    same_source: bool = True
    train_target: pathlib.Path | None = None
    held_out_target: pathlib.Path | None = None

    @property
    def files(self) -> list[pathlib.Path]:
        """All vectors and targets."""
        files = (self.train, self.held_out, self.train_target, self.held_out_target)
        return [path for path in files if path is not None]

    @property
    def wanted(self) -> pathlib.Path:
        """What a reconstruction of the held-out vectors is compared with."""
        return self.held_out_target or self.held_out

    @property
    def arguments(self) -> list[str]:
        """Of ``qsae train``, to read them."""
        options = [(name, value) for name, value in self.data.items() if name != "use"]
        flags = [item for name, value in options for item in (f"--data.{name.replace('_', '-')}", str(value))]
        return ["--data", self.data["use"], *flags]


def draw(
    data: Mapping[str, Any],
    folder: pathlib.Path,
    *,
    steps: int,
    batch_size: int,
    held_out: int | Sequence[pathlib.Path],
    seed: int,
) -> Vectors:
    """Write the vectors on which a qsae run of this length would train, and others to measure on.

    A run measures its statistics on the first vectors of the stream and trains on those that follow, so these
    first ones are passed over here.

    Args:
        held_out: so many of the source's held-out vectors at most; or a file of others, and one of their
            targets where the source has targets of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train = {"steps": steps, "batch_size": batch_size}
    source, statistics = open_source(data, seed, train)
    source.next_batch(statistics)
    train = [folder / "train.npy", folder / "train_target.npy"]
    pairs = write_rows(train, (source.next_batch(batch_size) for _ in range(steps)), steps * batch_size)
    if isinstance(held_out, int):
        measured = [folder / "held_out.npy", folder / "held_out_target.npy"]
        others = list(source.held_out(held_out, CHUNK_ROWS))
        write_rows(measured, others, sum(map(len, others)))
    else:
        measured = list(held_out)
    written = Vectors(dict(data), train[0], measured[0], source.describe())
    written = written._replace(same_source=isinstance(held_out, int))
    if pairs:
        written = written._replace(train_target=train[1], held_out_target=measured[1])
    if hasattr(source, "dictionary"):
        written = written._replace(dictionary=folder / "dictionary.npy")
        np.save(folder / "dictionary.npy", source.dictionary().numpy())
    source.close()
    return written


def describe(data: Mapping[str, Any], seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """What a source with a known dictionary says of itself, and this dictionary."""
    source, _ = open_source(data, seed, {})
    described, dictionary = source.describe(), source.dictionary().numpy()  # type: ignore[attr-defined]
    source.close()
    return described, dictionary


def harvest(
    path: pathlib.Path,
    data: Mapping[str, Any],
    *,
    rows: int,
    seed: int,
    whole: bool = False,
    target: pathlib.Path | None = None,
) -> pathlib.Path:
    """Write hidden states of a language model, float32 ``[N, D]``; nothing if the file is there.

    Args:
        target: takes the targets of data that has its own.
        data: the ``data`` section of a qsae run that reads them.
        whole: the first ones of all the text in its order, for a text that nothing is trained on; else the
            first ones on which a run would train.
    """
    files = [path] if target is None else [path, target]
    if not all(file.exists() for file in files):
        path.parent.mkdir(parents=True, exist_ok=True)
        progress(f"reading {rows:,} hidden states for {path.name}")
        source, _ = open_source(data, seed, {})
        sizes = [min(CHUNK_ROWS, rows - start) for start in range(0, rows, CHUNK_ROWS)]
        if whole:
            source.held_out_part().take_all()
            parts = source.held_out(rows, CHUNK_ROWS)
        else:
            parts = (source.next_batch(size) for size in sizes)
        write_rows(files, parts, rows)
        source.close()
    return path


def write_rows(paths: Sequence[pathlib.Path], parts: Iterable[Batch], rows: int) -> bool:
    """``.npy`` files of float32 ``[rows, D]`` and, where targets are not the vectors themselves, ``[rows,
    E]``, from parts that never are in memory together; whether there are such targets."""
    arrays: list[np.memmap[Any, Any]] = []
    unfinished = [path.with_suffix(".tmp.npy") for path in paths]
    start = 0
    for part in parts:
        sides = [part.x] if part.y is part.x else [part.x, part.y]
        arrays = arrays or [
            np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(rows, side.shape[1]))
            for file, side in zip(unfinished, sides, strict=False)
        ]
        for array, side in zip(arrays, sides, strict=True):
            array[start : start + len(side)] = side.numpy()
        start += len(part)
    if start != rows:
        raise ValueError(f"{start} rows instead of {rows} for {paths[0]}")
    for array, file, path in zip(arrays, unfinished, paths, strict=False):
        array.flush()
        os.replace(file, path)
    return len(arrays) > 1


def open_source(data: Mapping[str, Any], seed: int, train: Mapping[str, Any]) -> tuple[DataSource, int]:
    """The source as ``qsae train`` would open it, and how many vectors it takes for its statistics."""
    registry = load_plugins().registry
    tree = {"sae": {"use": "topk"}, "data": dict(data), "train": dict(train), "run": {"seed": seed}}
    config = resolve([Layer(tree, "benchmark")], registry)
    return compose_data(config, registry), config.train.statistics_tokens


if __name__ == "__main__":
    options = dict(argument.split("=", 1) for argument in sys.argv[3:])
    harvest(pathlib.Path(sys.argv[1]), {"use": "lm", **options}, rows=int(sys.argv[2]), seed=0)
